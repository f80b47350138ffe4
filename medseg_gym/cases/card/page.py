"""A card as a page of Markdown, with its histogram of areas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gym.cases.card.contents import Card, shown_keys
from medseg_gym.cases.check_report import MOST_TARGETS
from medseg_gym.cases.source import SPLITS
from medseg_gym.display.plots import drawing, label, legend_below

AREAS = "areas.png"
_SHOWN = 10  # duplicates, groups and defects that the page names; the JSON has all
_BINS = np.geomspace(1e-5, 1, 41).tolist()


def as_markdown(card: Card, pictures: Sequence[str] = ()) -> str:
    """Return the page.

    Args:
        card: From `make_card`.
        pictures: Files beside it that it shows.
    """
    return "\n".join(_lines(card, pictures)) + "\n"


def _lines(card: Card, pictures: Sequence[str]) -> Iterator[str]:
    report = card.report
    yield f"# Data card: {report.spec}"
    yield ""
    synthetic = sum(one.synthetic for one in report.seen)
    if synthetic:
        yield f"**Synthetic**: {synthetic} of {len(report.seen)} cases are made-up images."
        yield ""
    yield from _table(
        ("split", "cases", "images", "groups", "without target", "flat images", "not read"),
        [
            (
                split,
                counts["cases"],
                card.images.get(split, 0),
                counts["groups"],
                counts["empty_masks"],
                counts["flat_images"],
                counts["not_read"],
            )
            for split, counts in report.splits().items()
        ],
    )
    yield ""
    yield "A group is a patient, a volume or an image; splits and intervals go by it."
    yield ""
    yield "## Targets"
    yield ""
    rows = report.targets()
    yield from _table(
        ("modality", "target", *SPLITS, "groups", "area % (min, median, max)"),
        [
            (
                row["modality"] or "unknown",
                row["target"],
                *(row["cases"][split] for split in SPLITS),
                row["groups"],
                ", ".join(f"{value:.2f}" for value in row["area_percent"] or ()),
            )
            for row in rows[:MOST_TARGETS]
        ],
    )
    if len(rows) > MOST_TARGETS:
        yield ""
        yield f"And {len(rows) - MOST_TARGETS} more targets."
    for name in pictures:
        yield ""
        yield f"![{name.partition('.')[0]}]({name})"
    yield ""
    yield "## Images"
    yield ""
    modalities = (f"{name or 'unknown'} {count}" for name, count in report.modalities().items())
    yield f"- Cases by modality: {', '.join(modalities)}."
    sizes = ", ".join(f"{h} x {w} ({count})" for (h, w), count in report.sizes()[:_SHOWN])
    yield f"- Sizes of cases, height x width: {sizes}."
    yield f"- Spacing: {_spacing(card)}."
    areas = ", ".join(f"{name}: {count}" for name, count in report.areas().items() if count)
    yield f"- Cases by area of the target: {areas}."
    yield ""
    yield "## Between splits"
    yield ""
    yield from _shared(
        "Images that several splits hold, pixel for pixel",
        len(card.shared_images),
        shown_keys(card.shared_images, _SHOWN),
    )
    groups = [f"`{g}`: {', '.join(s)}" for g, s in list(card.shared_groups.items())[:_SHOWN]]
    yield from _shared("Groups that several splits hold", len(card.shared_groups), groups)
    yield ""
    yield "## Left out and defects"
    yield ""
    yield from (f"- {reason}: {count}" for reason, count in report.left_out.items())
    yield f"- Defects: {len(report.bad) or 'none'}."
    yield from (f"    - {defect}" for defect in report.bad[:_SHOWN])


def _spacing(card: Card) -> str:
    three = card.spacing()
    if three is None:
        return "not known"
    known, images = len(card.spacings), sum(card.images.values()) - len(card.shared_images)
    low, middle, high = three
    return f"{low:.3g}, {middle:.3g}, {high:.3g} mm (min, median, max; {known} of {images} images)"


def _shared(words: str, count: int, lines: Sequence[str]) -> Iterator[str]:
    yield f"- {words}: {count or 'none'}."
    yield from (f"    - {line}" for line in lines)


def _table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield _row(headers)
    yield _row(["---"] * len(headers))
    yield from map(_row, rows)


def _row(cells: Sequence[object]) -> str:
    texts = (str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(texts)} |"


@drawing()
def plot_areas(areas: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draw how many targets cover which share of their image, by modality, on a logarithmic axis.

    Args:
        areas: Shares, 0..1, by modality.
        path: PNG to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 2.6), layout="constrained")
    axes = figure.subplots()
    lines = []
    for name, shares in areas.items():
        steps: Any = axes.hist(shares, _BINS, histtype="step", linewidth=1.6)[2]
        lines.append((steps[0], label(name)))
    axes.set_xscale("log")
    decades = [10.0**n for n in range(-5, 1)]
    axes.set_xticks(decades, [f"{100 * share:g} %" for share in decades])
    axes.set_xlabel("share of the image that the target covers")
    axes.set_ylabel("cases")
    legend_below(figure, lines, size=8)
    figure.savefig(path, dpi=130)
