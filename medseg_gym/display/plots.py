"""Plots as files: drawn without a window or a display, whatever their texts are written in."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal

from medseg_gym.display.palette import LINES

# Families with the letters that matplotlib's own font lacks; those that are installed are used.
_MORE_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "Droid Sans Fallback", "Noto Sans", "Noto Sans Arabic",
    "Noto Sans Devanagari", "Unifont",
)  # fmt: skip


_FOLD = 60  # letters of a line in a legend


@contextmanager
def drawing() -> Iterator[None]:
    """Make and save a figure in here; also a decorator. Names of targets are taken as they are.

    Figures look the same whatever style the user has set for his own, as a dark one: white, with
    the colours of the one palette, which are chosen for white. A dollar sign begins no formula,
    further fonts are used where they are installed, and a letter that no font has becomes a box
    without a warning.
    """
    from cycler import cycler
    from matplotlib import style

    settings: Any = {
        "text.parse_math": False,
        "font.family": ["DejaVu Sans", *_installed()],
        "axes.prop_cycle": cycler(color=LINES),
    }
    with style.context(["default", settings]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


def legend_below(figure: Any, lines: Sequence[tuple[Any, str]], size: float = 7) -> None:
    """Put a legend under the panels of a figure, where it covers no curve; long names are folded.

    The figure grows by what the legend needs, so that the panels keep their size.

    Args:
        figure: With the layout "constrained".
        lines: What was drawn, and its name.
        size: Of the letters, in points.
    """
    if not lines:
        return
    names = ["\n".join(textwrap.wrap(label(name), _FOLD)) or " " for _, name in lines]
    longest = max(len(line) for name in names for line in name.splitlines())
    inches = size / 72
    width, height = figure.get_size_inches()
    columns = int(width / (longest * inches * 0.62 + 0.6)) or 1
    columns = min(columns, len(names))
    # Columns are filled from above; the highest one decides.
    heights = [1 + name.count("\n") for name in names]
    rows = -(-len(names) // columns)
    lines_high = max(sum(heights[at : at + rows]) for at in range(0, len(heights), rows))
    figure.set_size_inches(width, height + (lines_high * 1.3 + 0.35 * rows + 1) * inches)
    figure.legend(
        [line for line, _ in lines],
        names,
        loc="outside lower center",
        ncols=columns,
        fontsize=size,
        handlelength=3,
        frameon=False,
    )


def labelled(figure: Any) -> list[tuple[Any, str]]:
    """Return what the panels of a figure show and its names, for `legend_below`; each name once."""
    drawn: dict[str, Any] = {}
    for panel in figure.axes:
        for line, name in zip(*panel.get_legend_handles_labels(), strict=True):
            drawn.setdefault(name, line)
    return [(line, name) for name, line in drawn.items()]


def logarithmic(panel: Any, side: Literal["x", "y"]) -> None:
    """Make an axis of a panel logarithmic, with its numbers written out.

    Matplotlib's own labels of such an axis are formulas, which `drawing` shows as they are typed.
    """
    from matplotlib.ticker import LogFormatter

    panel.set(**{f"{side}scale": "log"})
    axis = getattr(panel, f"{side}axis")
    axis.set_major_formatter(LogFormatter())
    axis.set_minor_formatter(LogFormatter())


def fold(text: str, letters: int, lines: int = 3) -> str:
    """Fold a title or a name into lines; what does not fit ends in an ellipsis."""
    folded = textwrap.wrap(text, max(8, letters), max_lines=lines, placeholder="…")
    return "\n".join(folded) or " "


def label(name: str) -> str:
    """A name in a legend; matplotlib leaves out those that begin with an underscore."""
    return f" {name}" if name.startswith("_") else name


@lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    from matplotlib import font_manager

    names = set(font_manager.get_font_names())
    return tuple(name for name in _MORE_FONTS if name in names)
