"""A case: an image, the true mask of one target, and their origin."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from medseg_gym.errors import CaseError

if TYPE_CHECKING:
    from typing_extensions import Self


class ReadOnlyCase:
    """Base of cases, which never change: their arrays are read-only, and copies share them."""

    key: str
    image: np.ndarray
    mask: np.ndarray
    target: str
    group: str
    truth_known: bool

    def _make_read_only(self) -> None:
        """Make the arrays contiguous and read-only, and an empty group the case's own."""
        for name in self._arrays():
            array = np.ascontiguousarray(getattr(self, name))
            if array.flags.writeable:
                array = array.view()
                array.flags.writeable = False
            object.__setattr__(self, name, array)
        if not self.group:
            object.__setattr__(self, "group", self.key)

    def _arrays(self) -> list[str]:
        """Names of the fields that hold one."""
        return [n for n in ("image", "mask", "initial_mask") if getattr(self, n, None) is not None]

    def __deepcopy__(self, memo: dict) -> Self:
        # gymnasium deep-copies the kwargs of a spec: a case never changes, so it is shared.
        return self

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        for name in self._arrays():  # unpickled arrays come back writable
            getattr(self, name).flags.writeable = False


@dataclass(frozen=True, eq=False)
class Case(ReadOnlyCase):
    """One image with one binary truth mask.

    Args:
        key: Stable identifier, unique within its source.
        image: (H, W, 3) uint8 RGB; copied only if it is not C-contiguous, then made read-only.
        mask: (H, W) bool, True is the target; may be all False (a no-target case).
        target: What to segment, in words, e.g. "left kidney in abdomen CT".
        modality: "CT", "MRI", "X-ray", "ultrasound", "fundus", "endoscopy", "microscopy", or "".
        spacing: Millimetres per pixel as (row, column), or None where unknown.
        group: Patient, volume or image that the case comes from. Splits and intervals go by group.
            Empty means the case is a group of its own.
        source: Name of the case source.
        synthetic: True for made-up images; shown wherever the case shows up.
        truth_known: False where nobody has outlined the target: `mask` is then a placeholder, all
            False, and Dice, IoU and reward are NaN. Environments refuse such cases.
        initial_mask: (H, W) bool, the mask that an episode begins with, which another model or a
            person has made and the agent is to repair; None begins with nothing.

    Raises:
        CaseError: An array has the wrong type, shape or dtype, or a field is not usable.

    Example:
        >>> import numpy as np
        >>> from medseg_gym.cases import Case
        >>> image, mask = np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), bool)
        >>> mask[10:22, 20:36] = True
        >>> case = Case("scan-1", image, mask, "left kidney in abdomen CT", group="patient-1")
        >>> case.height, case.width, case.area_fraction
        (48, 64, 0.0625)
        >>> Case("scan-2", image.astype(float), mask, "left kidney")
        Traceback (most recent call last):
        medseg_gym.errors.CaseError: case 'scan-2': image must be a uint8 array, got float64; ...
    """

    key: str
    image: np.ndarray
    mask: np.ndarray
    target: str
    modality: str = ""
    spacing: tuple[float, float] | None = None
    group: str = ""
    source: str = ""
    synthetic: bool = field(default=False, kw_only=True)
    truth_known: bool = field(default=True, kw_only=True)
    initial_mask: np.ndarray | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not self.key:
            raise CaseError(f"case key must be a non-empty string, got {self.key!r}")
        image, mask = self.image, self.mask
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            got = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
            detail = " with NaN or infinite pixels" if _has_non_finite(image) else ""
            raise CaseError(
                f"case {self.key!r}: image must be a uint8 array, got {got}{detail}; "
                "window the intensities to 0..255 first (medseg_gym.cases.window_to_rgb)"
            )
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise CaseError(
                f"case {self.key!r}: image must be (H, W, 3) RGB, got shape {image.shape}; "
                "repeat a grey image over three channels, drop an alpha channel"
            )
        self._check_mask("mask", mask)
        if self.initial_mask is not None:
            self._check_mask("initial_mask", self.initial_mask)
        if not self.truth_known and mask.any():
            raise CaseError(
                f"case {self.key!r}: a case without a known truth has an empty mask; "
                "leave truth_known out where the mask is the truth"
            )
        if self.spacing is not None and not _is_spacing(self.spacing):
            raise CaseError(
                f"case {self.key!r}: spacing must be two positive millimetres (row, column), "
                f"finite ones, or None, got {self.spacing}"
            )
        if self.spacing is not None:
            row, column = self.spacing
            object.__setattr__(self, "spacing", (float(row), float(column)))
        self._make_read_only()

    def _check_mask(self, name: str, mask: object) -> None:
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            got = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
            raise CaseError(
                f"case {self.key!r}: {name} must be a bool array, got {got}; use {name} > 0"
            )
        if mask.shape != self.image.shape[:2]:
            raise CaseError(
                f"case {self.key!r}: {name} is {mask.shape} but the image is "
                f"{self.image.shape[:2]} (height, width); they must have the same size"
            )

    @property
    def height(self) -> int:
        """Rows of the image and the mask."""
        return int(self.image.shape[0])

    @property
    def width(self) -> int:
        """Columns of the image and the mask."""
        return int(self.image.shape[1])

    @cached_property
    def content_hash(self) -> str:
        """Hash of the pixels alone: cases that share an image share its embedding."""
        return hash_pixels(self.image)

    @cached_property
    def area_fraction(self) -> float:
        """Share of the image that the target covers, 0..1."""
        return float(np.count_nonzero(self.mask)) / self.mask.size


def hash_pixels(image: np.ndarray) -> str:
    """Return the content hash of an image, 32 hexadecimal digits: its shape and its pixels.

    Args:
        image: (H, W, 3) uint8.
    """
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _is_spacing(spacing: object) -> bool:
    try:
        row, column = (float(s) for s in spacing)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return False
    return 0 < row < np.inf and 0 < column < np.inf


def _has_non_finite(image: object) -> bool:
    return (
        isinstance(image, np.ndarray)
        and np.issubdtype(image.dtype, np.floating)
        and not bool(np.isfinite(image).all())
    )
