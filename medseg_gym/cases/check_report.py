"""A check as tables for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from medseg_gym.cases.check import CheckReport
from medseg_gym.cases.source import SPLITS
from medseg_gym.display.terminal import Table

MOST_TARGETS = 40
"""Targets shown; `--json` has all."""

_MOST_SIZES = 6


def tables(report: CheckReport) -> Iterator[RenderableType]:
    """Yield the tables of a report and a line for every defect.

    Args:
        report: From `check_cases`.
    """
    yield _splits(report)
    if report.seen:
        yield _targets(report)
        yield from _lines(report)
    if report.left_out:
        yield Text("left out", style="bold")
        yield from (Text(f"  {reason}: {count}") for reason, count in report.left_out.items())
    notes = [note for note in report.notes if not note.left_out]
    for one, many, defects, style in (
        ("defect", "defects", report.bad, "red"),
        ("note (nothing is lost)", "notes (nothing is lost)", notes, "magenta"),
    ):
        counts = Counter(map(str, defects))  # a file may take several cases away
        if counts:
            title = f"{len(counts)} {one if len(counts) == 1 else many}"
            yield Text(title, style=f"bold {style}")
            for text, cases in counts.items():
                yield Text(f"  {text}" + (f" ({cases} cases)" if cases > 1 else ""))
    if not report.bad:
        yield Text("no defects", style="green")


def _splits(report: CheckReport) -> Table:
    table = Table(title=Text(f"cases of {report.spec}"))
    for header in ("split", "cases", "groups", "empty masks", "flat images", "not read"):
        table.add_column(header, justify="left" if header == "split" else "right")
    for split, counts in report.splits().items():
        table.add_row(split, *(str(count) for count in counts.values()))
    return table


def _targets(report: CheckReport) -> Table:
    rows = report.targets()
    table = Table(keys=2, title="targets")
    for header in ("modality", "target"):
        table.add_column(header, overflow="fold")
    for header in (*SPLITS, "groups", "empty", "area % (min, median, max)"):
        table.add_column(header, justify="right")
    for row in rows[:MOST_TARGETS]:
        area = row["area_percent"]
        modality = (row["modality"] or "?") + (" (synthetic)" if row["synthetic"] else "")
        table.add_row(
            Text(modality),
            Text(row["target"]),
            *(str(row["cases"][split]) for split in SPLITS),
            str(row["groups"]),
            str(row["empty_masks"]),
            ", ".join(f"{value:.2f}" for value in area) if area else "",
        )
    if len(rows) > MOST_TARGETS:
        table.add_row("", f"... and {len(rows) - MOST_TARGETS} more targets: --json lists all")
    return table


def _lines(report: CheckReport) -> Iterator[Text]:
    modalities = (f"{name or 'unknown'} {count}" for name, count in report.modalities().items())
    yield Text("modalities: " + ", ".join(modalities))
    sizes = report.sizes()
    shown = ", ".join(f"{h} x {w} ({count})" for (h, w), count in sizes[:_MOST_SIZES])
    others = f", and {len(sizes) - _MOST_SIZES} more sizes" if len(sizes) > _MOST_SIZES else ""
    yield Text(f"sizes (height x width): {shown}{others}")
    areas = ", ".join(f"{name}: {count}" for name, count in report.areas().items() if count)
    yield Text(f"area of the target: {areas}")
    known = sum(one.spacing for one in report.seen)
    yield Text(f"spacing in mm: known of {known} of {len(report.seen)} cases")
