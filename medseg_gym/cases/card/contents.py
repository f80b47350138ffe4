"""Contents of a card, found by a check and by reading every case once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from medseg_gym.cases.case_source import load_splits
from medseg_gym.cases.check import GENERATED_LIMIT, CheckReport, check_cases
from medseg_gym.cases.files.dataset_formats import read_file_spec
from medseg_gym.cases.initial.providers import take_option
from medseg_gym.cases.source import SPLITS

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SharedImage:
    """An image that several splits hold, pixel for pixel.

    Args:
        splits: In which it lies.
        keys: Of one case on it in each.
    """

    splits: tuple[str, ...]
    keys: tuple[str, ...]


@dataclass
class Card:
    """Facts of a data set.

    Args:
        report: Of the check: counts, targets, sizes, areas, defects.
        images: Distinct ones by split.
        areas: Shares of the image that targets cover, by modality; absent targets are not in it.
        spacings: Millimetres per pixel along rows, of the images where it is known.
        shared_images: In several splits.
        shared_groups: Patients, volumes or images that several splits hold, with those splits.
    """

    report: CheckReport
    images: dict[str, int] = field(default_factory=dict)
    areas: dict[str, list[float]] = field(default_factory=dict)
    spacings: list[float] = field(default_factory=list)
    shared_images: list[SharedImage] = field(default_factory=list)
    shared_groups: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def spacing(self) -> tuple[float, float, float] | None:
        """Smallest, median and largest spacing in millimetres; None where none is known."""
        if not self.spacings:
            return None
        return min(self.spacings), median(self.spacings), max(self.spacings)

    def as_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return {
            **self.report.as_dict(),
            "images": self.images,
            "spacing_mm": self.spacing(),
            "shared_images": [
                {"splits": list(one.splits), "keys": list(one.keys)} for one in self.shared_images
            ],
            "shared_groups": {group: list(splits) for group, splits in self.shared_groups.items()},
        }


def make_card(spec: str, limit: int | None = None, progress: Progress | None = None) -> Card:
    """Read every case of every split.

    Args:
        spec: Case spec; of files, defective cases are listed and left out.
        limit: Most cases of a split; by default all of files, and `GENERATED_LIMIT` where a source
            makes them on demand.
        progress: Called with (done, total).

    Raises:
        CaseError: The spec cannot be used, or nothing is there.
    """
    card = Card(check_cases(spec, limit))
    spec, _ = take_option(spec)  # masks to begin with are no part of the data
    files = read_file_spec(spec)
    if files is not None and card.report.bad:
        spec = files[1].adding(skip_bad="1")
    sources = load_splits(spec)
    read = limit if limit is not None else (None if files is not None else GENERATED_LIMIT)
    counts = {split: min(len(s), read or len(s)) for split, s in sources.items()}
    by_image: dict[str, dict[str, str]] = {}
    by_group: dict[str, dict[str, None]] = {}
    done, total = 0, sum(counts.values())
    for split, source in sources.items():
        for index in range(counts[split]):
            case = source[index]
            on_it = by_image.setdefault(case.content_hash, {})
            if not on_it and case.spacing is not None:
                card.spacings.append(case.spacing[0])
            on_it.setdefault(split, case.key)
            by_group.setdefault(case.group, {}).setdefault(split)
            if case.mask.any():
                card.areas.setdefault(case.modality or "unknown", []).append(case.area_fraction)
            done += 1
            if progress is not None:
                progress(done, total)
    card.images = {split: sum(split in on_it for on_it in by_image.values()) for split in SPLITS}
    card.shared_images = [
        SharedImage(tuple(on_it), tuple(on_it.values()))
        for on_it in by_image.values()
        if len(on_it) > 1
    ]
    card.shared_groups = {
        group: tuple(splits) for group, splits in by_group.items() if len(splits) > 1
    }
    return card


def shown_keys(shared: Sequence[SharedImage], count: int) -> list[str]:
    """Return a line for each of the first images that several splits hold."""
    return [
        ", ".join(f"{split} `{key}`" for split, key in zip(one.splits, one.keys, strict=True))
        for one in shared[:count]
    ]
