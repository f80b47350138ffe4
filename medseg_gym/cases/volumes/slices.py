"""The choice of labelled slices of a volume that become cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from medseg_gym.cases.files.counts import Counts
from medseg_gym.cases.files.spec import FileOptions, FileSpec, WrongOption
from medseg_gym.errors import CaseError

MIN_AREA = 20
"""Pixels of a target on a slice, at least; the packaged samples have the same floor."""


@dataclass(frozen=True, kw_only=True)
class SliceOptions(FileOptions):
    """Options of every format whose cases are slices of volumes."""

    topic: ClassVar[str] = "Volumes"

    window: str = ""
    """Intensities shown black and white; see `medseg_gym.cases.volumes.parse_window`."""

    min_area: int = MIN_AREA
    """Pixels that a target has on a slice, at least."""

    slices: str = "all"
    """"all", "top:N" (the N largest per volume and target) or "every:N"."""

    resample: Literal["off", "nearest"] = "off"
    """"nearest" carries masks that lie on another grid over to the grid of their images; "off"
    refuses them. The order and direction of axes may differ anyway."""

    def __post_init__(self) -> None:
        if self.min_area < 0:
            raise WrongOption("min_area", "give a whole number from 0 on")


@dataclass(frozen=True)
class SliceChoice:
    """The choice among the slices that show a target.

    Args:
        min_area: Pixels that the target has at least.
        top: Keep only so many slices per volume and target, those with the largest areas; 0 keeps
            all.
        every: Keep every n-th of the slices that are left, from the first on.
    """

    min_area: int = MIN_AREA
    top: int = 0
    every: int = 1

    @classmethod
    def of(cls, spec: FileSpec) -> SliceChoice:
        """Read the options `slices` and `min_area` of a spec.

        Raises:
            CaseError: One cannot be used.
        """
        given = spec.read(SliceOptions)
        try:
            return cls.parse(given.slices, given.min_area)
        except CaseError as error:
            raise spec.wrong("slices", str(error)) from error

    @classmethod
    def parse(cls, text: str, min_area: int) -> SliceChoice:
        """Read the option `slices`: "all", "top:5" or "every:3".

        Raises:
            CaseError: None of these.
        """
        kind, _, number = text.partition(":")
        if text in ("", "all"):
            return cls(min_area)
        if kind in ("top", "every") and number.isdigit() and int(number) > 0:
            return cls(min_area, **{kind: int(number)})
        raise CaseError("use all, top:NUMBER or every:NUMBER")

    @property
    def floor(self) -> int:
        """Pixels of a target on a slice that make it a case; a slice without the target is none."""
        return max(1, self.min_area)

    @property
    def reason(self) -> str:
        """Reason that small slices are counted under; see `CaseSource.left_out`."""
        return f"targets on slices with under {self.floor} pixels (min_area= changes that)"

    def count_small(
        self, counts: Counts, areas: Mapping[int, int], volume: str, image: bool = False
    ) -> None:
        """Count the slices that show less of the target than `min_area`.

        A volume holds them all the same, unless all of its slices are such: then it has no case by
        which it is known.

        Args:
            counts: Added to.
            areas: Pixels of the target by slice.
            volume: Name of its file, for the note.
            image: The only slice is an image of its own, no volume.
        """
        small = [index for index, area in areas.items() if 0 < area < self.floor]
        for index in small:
            place = f"{volume}, slice {index}"
            counts.add("", self.reason, place, left_out=True, counts_for="slices")
        if small and not image and max(areas.values()) < self.floor:
            size = f"under {self.floor} pixels on every slice"
            reason = f"targets with {size} (min_area= changes that)"
            counts.add("", reason, volume, left_out=True, counts_for="volumes")

    def choose(self, areas: Mapping[int, int]) -> list[int]:
        """Return the slices that are kept, in ascending order.

        Args:
            areas: Pixels of the target by slice.
        """
        kept = sorted(index for index, area in areas.items() if area >= self.floor)
        if self.top:
            kept = sorted(sorted(kept, key=lambda index: (-areas[index], index))[: self.top])
        return kept[:: self.every]


def joined(areas: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Add up the areas of a target that several label values make up."""
    total: dict[int, int] = {}
    for single in areas:
        for index, area in single.items():
            total[index] = total.get(index, 0) + area
    return total
