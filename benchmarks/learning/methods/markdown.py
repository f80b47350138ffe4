"""The table of the comparison as the page of results shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medseg_agents.evaluation.options import CALL_COSTS

from benchmarks.learning.methods.catalogue import DEFAULT, START
from benchmarks.shared.markdown import markdown_table

_HEADER = (
    *("method", "options", "return", "by seed", "less the start [95 %]"),
    *(f"less the start, limited, a call at {cost:g} [95 %]" for cost in CALL_COSTS),
    *("less the default [95 %]", "Dice", "Dice less the default [95 %]"),
    *("Dice after call 1 less the start's [95 %]", "after call 3 [95 %]"),
    *("where the target is there, after call 1 [95 %]", "after call 3 [95 %]"),
    *("clipped", "groups without spread", "CPU minutes"),
)


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a Markdown table; a difference whose interval leaves out 0 is bold.

    Args:
        rows: Of `make_table`.
    """
    lines = []
    for row in rows:
        start, default = row["method"] == START, row["method"] == DEFAULT
        same = not start and not default and row["same_weights_as_default"] == row["seeds"]
        over_default = "the same weights" if same else spread(row, "return_over_default")
        dice = "the same weights" if same else spread(row, "dice_over_default")
        options = row["options"].removeprefix("medseg train ")
        cells = [
            row["policy"],
            f"`{options}`" if options else "",
            f"{row['return']:.3f}",
            "" if start else row["return_by_seed"].replace(" ", ", "),
            spread(row, "return_over_start"),
            *(spread(row, limited_key(cost)) for cost in CALL_COSTS),
            over_default,
            f"{row['dice']:.3f}",
            dice,
            spread(row, "dice_1_over_start"),
            spread(row, "dice_3_over_start"),
            spread(row, "present_dice_1_over_start"),
            spread(row, "present_dice_3_over_start"),
            share(row["clipped"]),
            share(row["flat_groups"]),
            row["cpu_minutes"].replace(" ", ", "),
        ]
        lines.append(cells)
    return markdown_table(_HEADER, lines) + "\n"


def limited_key(cost: float) -> str:
    """Return the column of the return over the start's under its best limit on calls."""
    return f"return_over_limited_{cost:g}"


def spread(row: Mapping[str, Any], key: str) -> str:
    """Return a difference with its interval, bold where that leaves out 0; "" where it is none."""
    if row[key] == "":
        return ""
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    text = f"{row[key]:+.3f}"
    if low == "":
        return text
    text = f"{text} [{low:+.3f}, {high:+.3f}]"
    return text if low <= 0 <= high else f"**{text}**"


def share(value: float | str) -> str:
    """Return a share of 1 as per cent; "" stays."""
    return value if isinstance(value, str) else f"{value:.1%}"
