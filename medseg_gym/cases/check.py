"""Check a case source: contents and defects, found by reading every case once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np

from medseg_gym.cases.case_source import load_splits
from medseg_gym.cases.files import DatasetFormat, Defect, FileData, FileSpec
from medseg_gym.cases.files.dataset_formats import read_file_spec
from medseg_gym.cases.files.defects import Damaged
from medseg_gym.cases.initial.providers import take_option
from medseg_gym.cases.source import SPLITS
from medseg_gym.errors import CaseError

AREA_EDGES = (0.001, 0.01, 0.05, 0.2)
"""Bounds between the classes of area, as shares of the image."""

GENERATED_LIMIT = 500
"""Cases of a split that are read where a source makes them on demand."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CheckedCase:
    """A case that could be read."""

    split: str
    group: str
    modality: str
    target: str
    size: tuple[int, int]
    area: int
    flat: bool
    spacing: bool
    synthetic: bool

    @property
    def share(self) -> float:
        """Share of the image that the target covers."""
        return self.area / (self.size[0] * self.size[1])


@dataclass
class CheckReport:
    """Result of a check.

    Args:
        spec: What was checked.
        seen: The cases that could be read.
        defects: What is wrong, notes included.
        not_read: Cases left unread by split, where a source makes more than anyone can read.
        left_out: As in `CaseSource`.
    """

    spec: str
    seen: list[CheckedCase] = field(default_factory=list)
    defects: tuple[Defect, ...] = ()
    not_read: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def bad(self) -> list[Defect]:
        """Defects that take a case away."""
        return [defect for defect in self.defects if not defect.note]

    @property
    def notes(self) -> list[Defect]:
        """Defects that take nothing away, and what was left out."""
        return [defect for defect in self.defects if defect.note]

    def splits(self) -> dict[str, dict[str, int]]:
        """Count cases, groups, images without a target and flat images of every split."""
        summary = {}
        for split in SPLITS:
            cases = [one for one in self.seen if one.split == split]
            summary[split] = {
                "cases": len(cases),
                "groups": len({one.group for one in cases}),
                "empty_masks": sum(not one.area for one in cases),
                "flat_images": sum(one.flat for one in cases),
                "not_read": self.not_read.get(split, 0),
            }
        return summary

    def targets(self) -> list[dict[str, Any]]:
        """Count cases and groups of every target, with its areas in percent of the image."""
        by_target: dict[tuple[str, str, bool], list[CheckedCase]] = {}
        for one in self.seen:
            by_target.setdefault((one.modality, one.target, one.synthetic), []).append(one)
        rows = []
        for (modality, target, synthetic), cases in by_target.items():
            areas = [100 * one.share for one in cases if one.area]
            rows.append(
                {
                    "modality": modality,
                    "target": target,
                    "synthetic": synthetic,
                    "cases": {s: sum(one.split == s for one in cases) for s in SPLITS},
                    "groups": len({one.group for one in cases}),
                    "empty_masks": len(cases) - len(areas),
                    "area_percent": [min(areas), median(areas), max(areas)] if areas else None,
                }
            )
        return sorted(rows, key=lambda row: (row["modality"], -sum(row["cases"].values())))

    def sizes(self) -> list[tuple[tuple[int, int], int]]:
        """Count image sizes (H, W), the most frequent first."""
        return Counter(one.size for one in self.seen).most_common()

    def areas(self) -> dict[str, int]:
        """Count cases by the share of the image that the target covers."""
        edges = [f"{100 * edge:g}" for edge in AREA_EDGES]
        pairs = pairwise(edges)
        names = [f"under {edges[0]} %", *(f"{low} to {high} %" for low, high in pairs)]
        names = ["empty", *names, f"{edges[-1]} % and more"]
        shares = [one.share for one in self.seen]
        at = [0 if not share else 1 + sum(share >= edge for edge in AREA_EDGES) for share in shares]
        return {name: at.count(number) for number, name in enumerate(names)}

    def modalities(self) -> dict[str, int]:
        """Count cases by modality; "" where it is not known."""
        return dict(Counter(one.modality for one in self.seen).most_common())

    def as_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return {
            "spec": self.spec,
            "ok": not self.bad,
            "cases": len(self.seen),
            "groups": len({one.group for one in self.seen}),
            "with_spacing": sum(one.spacing for one in self.seen),
            "synthetic": sum(one.synthetic for one in self.seen),
            "splits": self.splits(),
            "modalities": self.modalities(),
            "sizes": [{"size": list(size), "cases": count} for size, count in self.sizes()],
            "areas": self.areas(),
            "targets": self.targets(),
            "left_out": self.left_out,
            "defects": [defect.as_dict() for defect in self.bad],
            "notes": [defect.as_dict() for defect in self.notes],
        }


def check_cases(
    spec: str, limit: int | None = None, progress: Progress | None = None
) -> CheckReport:
    """Read every case of every split once.

    Args:
        spec: Case spec; of files on disk every defect is collected.
        limit: Most cases read of a split, for sources that are not files; by default
            `GENERATED_LIMIT`.
        progress: Called with (done, total).

    Raises:
        CaseError: The spec cannot be used at all, or nothing is there.
    """
    inner, begun = take_option(spec)
    files = read_file_spec(inner)
    if files is not None:
        report = _check_files(spec, *files, progress)
    else:
        report = CheckReport(spec)
        report.seen = list(_read(inner, limit or GENERATED_LIMIT, report, progress))
    if begun is not None and not report.bad:
        report.defects += tuple(_bad_initial_masks(spec, limit or GENERATED_LIMIT))
    return report


def _bad_initial_masks(spec: str, limit: int) -> Iterator[Defect]:
    """Defects of what cases begin with, of the first so many of every split."""
    for source in load_splits(spec).values():
        for index in range(min(limit, len(source))):
            try:
                source[index]
            except Damaged as error:
                yield error.defect
            except CaseError as error:
                yield Defect(source.keys[index], str(error), "initial mask")


def _check_files(
    spec: str,
    dataset_format: type[DatasetFormat],
    file_spec: FileSpec,
    progress: Progress | None,
) -> CheckReport:
    data = FileData(dataset_format(file_spec.without("skip_bad")))
    facts = data.examine(progress)
    report = CheckReport(spec, defects=data.defects, left_out=data.left_out)
    for record in data.records:
        case_facts = facts[record.key]
        report.seen.append(
            CheckedCase(
                split=record.split,
                group=record.group,
                modality=record.modality,
                target=record.target,
                size=(case_facts.height, case_facts.width),
                area=case_facts.area,
                flat=case_facts.flat,
                spacing=record.spacing is not None,
                synthetic=record.synthetic,
            )
        )
    if not report.seen and not report.bad:
        data.require_usable()
    return report


def _read(
    spec: str, limit: int, report: CheckReport, progress: Progress | None
) -> Iterator[CheckedCase]:
    sources = load_splits(spec)
    total = sum(min(limit, len(source)) for source in sources.values())
    if not total:
        raise CaseError(f"{spec} has no cases")
    done = 0
    for split, source in sources.items():
        report.left_out.update(source.left_out)  # of all splits, so the same in each
        if len(source) > limit:
            report.not_read[split] = len(source) - limit
        for index in range(min(limit, len(source))):
            case = source[index]
            yield CheckedCase(
                split=split,
                group=case.group,
                modality=case.modality,
                target=case.target,
                size=(case.height, case.width),
                area=int(np.count_nonzero(case.mask)),
                flat=bool((case.image == case.image[0, 0]).all()),
                spacing=case.spacing is not None,
                synthetic=case.synthetic,
            )
            done += 1
            if progress is not None:
                progress(done, total)
