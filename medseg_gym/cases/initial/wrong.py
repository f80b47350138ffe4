"""Wrong masks made from the truth: "initial_mask=wrong", to learn and to measure repairing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from types import MappingProxyType

import numpy as np

from medseg_gym.cases.case import Case
from medseg_gym.errors import CaseError, nearest

_SHIFT = (0.5, 1.0)  # of the diameter of a disc of the target's area
_LEAK = (0.4, 1.2)  # area of what leaks, of the target's
_BLOB = (0.03, 0.08)  # radius of a mask where there is nothing, of the image's longer side


def _moved(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The target's shape beside the target, as a box on a neighbour gives it."""
    diameter = 2 * (truth.sum() / np.pi) ** 0.5
    angle, length = rng.uniform(0, 2 * np.pi), diameter * rng.uniform(*_SHIFT)
    down, right = round(length * np.sin(angle)), round(length * np.cos(angle))
    here = shifted(truth, down, right)
    there = shifted(truth, -down, -right)  # more of it may lie inside the image
    return here if here.sum() >= there.sum() else there


def _leaking(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The target with a disc that has run out over its border."""
    rows, columns = np.nonzero(truth)
    edge = truth & ~(
        shifted(truth, 1, 0) & shifted(truth, -1, 0) & shifted(truth, 0, 1) & shifted(truth, 0, -1)
    )
    places = np.argwhere(edge)
    row, column = places[int(rng.integers(len(places)))]
    radius = max(1.0, (len(rows) * rng.uniform(*_LEAK) / np.pi) ** 0.5)
    away = np.array([row - rows.mean(), column - columns.mean()])
    size = float(np.hypot(*away)) or 1.0
    middle = np.array([row, column]) + 0.7 * radius * away / size
    leaked: np.ndarray = truth | disc(truth.shape, middle[0], middle[1], radius)
    return leaked


def _half(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One side of a line through the target's middle."""
    rows, columns = np.nonzero(truth)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[: truth.shape[0], : truth.shape[1]]
    side = (y - rows.mean()) * np.sin(angle) + (x - columns.mean()) * np.cos(angle) > 0
    half: np.ndarray = truth & side
    return half


KINDS: Mapping[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = MappingProxyType(
    {"moved": _moved, "leaking": _leaking, "half": _half}
)


@dataclass(frozen=True)
class Wrong:
    """Gives each case a wrong mask, the same one every time: what is wrong is drawn from its key.

    A target that is absent gets a disc somewhere. Masks are made from the truth alone, without a
    segmenter, so that all segmenters and policies begin with the same ones.

    Args:
        kinds: Of errors, out of `KINDS`, drawn among alike.
    """

    kinds: tuple[str, ...] = tuple(KINDS)

    def __call__(self, case: Case) -> np.ndarray:
        """Return (H, W) bool."""
        rng, kind = _draw(case, self.kinds)
        if not case.mask.any():
            radius = max(case.mask.shape) * rng.uniform(*_BLOB)
            row, column = rng.uniform(0, 1, 2) * case.mask.shape
            return disc(case.mask.shape, row, column, radius)
        return KINDS[kind](case.mask, rng)


def kind_of(case: Case, kinds: tuple[str, ...] = tuple(KINDS)) -> str:
    """Return what is wrong with the mask that `Wrong(kinds)` gives a case with a target."""
    return _draw(case, kinds)[1]


def _draw(case: Case, kinds: tuple[str, ...]) -> tuple[np.random.Generator, str]:
    digest = blake2b(f"{case.source}|{case.key}|{case.target}".encode(), digest_size=8).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "little"))
    return rng, kinds[int(rng.integers(len(kinds)))]


def load(argument: str, kinds: str = ",".join(KINDS)) -> Wrong:
    """Open "initial_mask=wrong" or "initial_mask=wrong?kinds=moved,half".

    Raises:
        CaseError: An argument, or a kind that does not exist.
    """
    if argument:
        raise CaseError(f"initial mask 'wrong' has no argument behind a colon, got {argument!r}")
    chosen = tuple(kind.strip() for kind in kinds.split(",") if kind.strip())
    for kind in chosen:
        if kind not in KINDS:
            raise CaseError(
                f"initial mask 'wrong': kinds must be of {', '.join(KINDS)}, got {kind!r}"
                f"{nearest(kind, tuple(KINDS))}"
            )
    if not chosen:
        raise CaseError(f"initial mask 'wrong': name one of the kinds {', '.join(KINDS)}")
    return Wrong(chosen)


def shifted(mask: np.ndarray, down: int, right: int) -> np.ndarray:
    """Return a mask moved by whole pixels; what leaves the image is gone.

    Args:
        mask: (H, W) bool.
        down: Pixels; negative ones go up.
        right: Pixels; negative ones go left.
    """
    height, width = mask.shape
    moved = np.zeros_like(mask)
    if abs(down) < height and abs(right) < width:
        moved[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = mask[
            max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)
        ]
    return moved


def disc(shape: tuple[int, ...], row: float, column: float, radius: float) -> np.ndarray:
    """Return (H, W) bool: the pixels whose centres lie in a disc, at least the middle one."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    inside: np.ndarray = (y - row) ** 2 + (x - column) ** 2 <= radius**2
    middle = min(max(int(row), 0), shape[0] - 1), min(max(int(column), 0), shape[1] - 1)
    inside[middle] = True
    return inside
