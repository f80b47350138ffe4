"""The procedural case source: index -> (scene, image, target) by arithmetic, drawn on demand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import overload

import numpy as np
from scipy.ndimage import label

from medseg_gym.cases.case import Case
from medseg_gym.cases.case_source import CaseSource
from medseg_gym.cases.phantoms.positions import Placement, add_decoys
from medseg_gym.cases.phantoms.scene import HARD_KINDS, Drawing, Scene
from medseg_gym.cases.phantoms.scenes import SCENES
from medseg_gym.cases.source import SPLITS
from medseg_gym.errors import CaseError, nearest

LENGTH = 100_000
"""Nominal number of cases of a split."""

CASES_PER_IMAGE = 4
"""Consecutive cases that share one image and ask for different targets in it."""

_MIN_AREA = 45  # pixels of a standard target
_MAX_TINY = 40  # pixels of a tiny target
_TRIES = 200  # of an image that shows what it should; a few are ever needed
_DRAWING = 1  # raise when the drawing changes, so that old results are not mistaken for new ones
_NAMES = tuple(SCENES)
_KEY = re.compile(r"phantoms/(\w+)/([a-z]+)(-hard)?(-random)?/(\d{6,})-(\d)(?:-(\w+))?")

POSITIONS = ("usual", "random")
_ABSENT = 0.4
"""Share of images at random positions that lack one of their four targets: a tenth of the cases."""


class PhantomKeys(Sequence[str]):
    """The keys of a source, made on demand; `index` parses instead of searching."""

    def __init__(self, split: str, names: tuple[str, ...], hard: bool, moved: bool = False) -> None:
        self._split, self._names, self._hard = split, names, hard
        self._variant = "-hard" * hard + "-random" * moved

    def __len__(self) -> int:
        return LENGTH

    def locate(self, index: int) -> tuple[str, int, int]:
        """Return (scene name, number of the image, number of the target) of a case.

        A negative index counts from the end.

        Raises:
            IndexError: Outside of the split.
        """
        if not -LENGTH <= index < LENGTH:
            raise IndexError(f"phantoms: case {index} of {LENGTH} ({self._split!r})")
        image, slot = divmod(int(index) % LENGTH, CASES_PER_IMAGE)
        number, scene = divmod(image, len(self._names))
        return self._names[scene], number, slot

    def group(self, name: str, number: int) -> str:
        """Return the identifier of an image."""
        return f"phantoms/{self._split}/{name}{self._variant}/{number:06d}"

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(LENGTH)))
        name, number, slot = self.locate(index)
        kind = f"-{hard_kind(number, slot)}" if self._hard else ""
        return f"{self.group(name, number)}-{slot}{kind}"

    def index(self, value: str, start: int = 0, stop: int | None = None) -> int:
        """Return the position of a key.

        Raises:
            ValueError: It is not a key of this source.
        """
        match = _KEY.fullmatch(value) if isinstance(value, str) else None
        if match is not None and match[2] in self._names:
            image = int(match[5]) * len(self._names) + self._names.index(match[2])
            position = image * CASES_PER_IMAGE + int(match[6])
            if position in range(LENGTH)[start:stop] and self[position] == value:
                return position
        raise ValueError(f"{value!r} is not a phantom key of this source")

    def __contains__(self, value: object) -> bool:
        try:
            self.index(value)  # type: ignore[arg-type]
        except ValueError:
            return False
        return True


def hard_kind(number: int, slot: int) -> str:
    """Return what makes target `slot` of hard image `number` hard: each kind a fifth of all."""
    return HARD_KINDS[(number * CASES_PER_IMAGE + slot) % len(HARD_KINDS)]


class PhantomSource(CaseSource):
    """Synthetic images with exact truth, one after another without end in sight.

    A image depends on split, scene, variant and number alone, so a key means the same case in
    the source of one scene and in the mixed one, in any order of access and in any process.

    Args:
        split: "train", "val" or "test"; no image is shared between them.
        names: Scenes to take turns, image by image.
        hard: The hard variant: a fifth each of low-contrast, thin, two-part and tiny targets and
            of targets that are not in the image; the kind ends the key.
        position: "usual", where structures lie about where they do in people; or "random": every
            image is turned, scaled, mirrored and moved, holds decoys of its structures' look, and
            a tenth of the targets is absent.

    Raises:
        CaseError: Another position.
    """

    def __init__(
        self,
        split: str,
        names: tuple[str, ...] = _NAMES,
        hard: bool = False,
        position: str = "usual",
    ) -> None:
        if position not in POSITIONS:
            raise CaseError(
                f"phantoms: position must be {' or '.join(POSITIONS)}, got {position!r}"
                f"{nearest(position, POSITIONS)}"
            )
        moved = position == "random"
        words = ([] if names == _NAMES else list(names)) + ["hard"] * hard
        self.name = "phantoms" + (":" + ",".join(words) if words else "")
        self.name += "?position=random" * moved
        self.split = split
        self._hard, self._moved = hard, moved
        self._keys = PhantomKeys(split, names, hard, moved)
        self._targets = tuple(text for name in names for text in SCENES[name].targets)

    @property
    def keys(self) -> Sequence[str]:
        """Case keys, in index order; lazy."""
        return self._keys

    @property
    def targets(self) -> tuple[str, ...]:
        """Target texts of all chosen scenes, standard and hard, the same for all splits."""
        return self._targets

    def __getitem__(self, index: int) -> Case:
        """Draw case `index`; a negative one counts from the end.

        Raises:
            IndexError: Outside of -100000..99999.
        """
        name, number, slot = self._keys.locate(index)
        page = _page(self.split, name, self._hard, number, self._moved)
        text, mask = page.asked[slot]
        return Case(
            key=self._keys[index],
            image=page.image,
            mask=mask,
            target=text,
            modality=SCENES[name].modality,
            spacing=page.spacing,
            group=self._keys.group(name, number),
            source="phantoms",
            synthetic=True,
        )

    def outlines(self, index: int) -> list[tuple[str, np.ndarray]]:
        """Return the four targets of the image of a case, then all others of its scene.

        A standard scene's others are the structures of standard cases; one that the image does not
        show has an empty mask, one that it shows with too few pixels for a case is left out.
        """
        name, number, _ = self._keys.locate(index)
        page = _page(self.split, name, self._hard, number, self._moved)
        return [*page.asked, *page.others]


_Named = list[tuple[str, np.ndarray]]


@dataclass(frozen=True)
class _Page:
    """An image, the four targets that cases ask for, and what else is known of it."""

    image: np.ndarray
    spacing: tuple[float, float] | None
    asked: _Named
    others: _Named


@lru_cache(maxsize=32)
def _page(split: str, name: str, hard: bool, number: int, moved: bool) -> _Page:
    """Draw an image and choose its targets."""
    words = [_DRAWING, SPLITS.index(split), _NAMES.index(name), int(hard), number]
    words += [1] * moved
    rng = np.random.default_rng(np.random.SeedSequence(words))
    scene = SCENES[name]
    page = _hard_page(rng, scene, number, moved) if hard else _plain_page(rng, scene, moved)
    page.image.flags.writeable = False
    return page


def _plain_page(rng: np.random.Generator, scene: Scene, moved: bool) -> _Page:
    absent = ""
    if moved and rng.random() < _ABSENT:
        absent = scene.optional[int(rng.integers(len(scene.optional)))]
    wanted = CASES_PER_IMAGE - bool(absent)
    for _ in range(_TRIES):
        drawing = _drawing(rng, scene, False, absent, moved)
        areas = {n: np.count_nonzero(drawing.masks[n]) for n in scene.structures if n in
                 drawing.masks}  # fmt: skip
        seen = [name for name, area in areas.items() if area >= _MIN_AREA and name != absent]
        if len(seen) >= wanted and not areas.get(absent):
            order = [seen[i] for i in rng.permutation(len(seen))]
            chosen, rest = order[:wanted], order[wanted:]
            if absent:
                chosen.insert(int(rng.integers(CASES_PER_IMAGE)), absent)
            rest += [n for n in scene.structures if not areas.get(n) and n != absent]
            nothing = np.zeros(drawing.image.shape[:2], bool)
            asked, others = (
                [(scene.text(n), drawing.masks[n] if areas.get(n) else nothing) for n in names]
                for names in (chosen, rest)
            )
            return _Page(drawing.image, drawing.spacing, asked, others)
    raise AssertionError(f"scene {scene.name!r} shows too few structures")


def _hard_page(rng: np.random.Generator, scene: Scene, number: int, moved: bool) -> _Page:
    kinds = [hard_kind(number, slot) for slot in range(CASES_PER_IMAGE)]
    absent = scene.optional[int(rng.integers(len(scene.optional)))]
    for _ in range(_TRIES):
        drawing = _drawing(rng, scene, True, absent, moved)
        wanted = [absent if kind == "absent" else scene.hard[kind] for kind in kinds]
        nothing = np.zeros(drawing.image.shape[:2], bool)
        masks = [nothing if name == absent else drawing.masks[name] for name in wanted]
        if all(_is_as_promised(mask, kind) for mask, kind in zip(masks, kinds, strict=True)):
            asked = list(zip(map(scene.text, wanted), masks, strict=True))
            return _Page(drawing.image, drawing.spacing, asked, [])
    raise AssertionError(f"scene {scene.name!r} does not show its hard structures")


def _drawing(
    rng: np.random.Generator, scene: Scene, hard: bool, absent: str, moved: bool
) -> Drawing:
    drawing = scene.draw(rng, hard, absent)
    return Placement.draw(rng).apply(add_decoys(rng, drawing)) if moved else drawing


def _is_as_promised(mask: np.ndarray, kind: str) -> bool:
    area = int(np.count_nonzero(mask))
    if kind == "tiny":
        return 3 <= area <= _MAX_TINY
    if kind == "two_part":
        sizes = np.bincount(label(mask)[0].ravel())[1:]
        return int(np.count_nonzero(sizes >= 12)) >= 2
    return kind == "absent" or area >= _MIN_AREA // 2


def parse(argument: str) -> tuple[tuple[str, ...], bool]:
    """Read the words after "phantoms:".

    Args:
        argument: Comma-separated scenes and "hard", in any order; no scene means all of them.

    Returns:
        Scene names in canonical order, and whether the hard variant is meant.

    Raises:
        CaseError: An unknown or repeated word.
    """
    words = [word.strip() for word in argument.split(",")] if argument.strip() else []
    for position, word in enumerate(words):
        if word not in (*_NAMES, "hard") or word in words[:position]:
            problem = "repeated" if word in words[:position] else "unknown"
            raise CaseError(
                f"phantoms:{argument}: {problem} word {word!r}; give 'phantoms' or 'phantoms:' and "
                f"comma-separated words out of {', '.join(_NAMES)} (scenes; all if none is given) "
                "and hard (the hard variant), for example 'phantoms:abdomen,hard'"
            )
    names = tuple(name for name in _NAMES if name in words) or _NAMES
    return names, "hard" in words


def load(argument: str, split: str, position: str = "usual") -> PhantomSource:
    """Open the phantom source for `load_cases("phantoms:ARGUMENT?position=random", split)`.

    Args:
        argument: See `parse`.
        split: "train", "val" or "test".
        position: See `PhantomSource`.

    Returns:
        The source.

    Raises:
        CaseError: An unknown word or position.
    """
    names, hard = parse(argument)
    return PhantomSource(split, names, hard, position)
