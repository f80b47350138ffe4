"""The one palette: colours that people with any colour vision can tell apart.

The colours are those of Okabe and Ito, "Color Universal Design" (2008), without the yellow in
plots, which is pale on white. Where more than colours are needed, markers and dashes differ too.
"""

from __future__ import annotations

from typing import Any

BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
PINK, VERMILLION, SKY, GREY = "#CC79A7", "#D55E00", "#56B4E9", "#555555"
LINES = (BLUE, ORANGE, GREEN, PINK, VERMILLION, SKY, GREY)
"""Of lines and points on white, in this order."""

MASK_RGB, TRUTH_RGB, BOX_RGB = (0, 200, 150), (240, 228, 66), (86, 180, 233)
"""Over images: a mask, the outline of the truth, a box."""
POSITIVE_RGB, NEGATIVE_RGB = (0, 114, 178), (213, 94, 0)
"""Over images: clicks that add and that take away; they bear a plus and a minus as well."""

_MARKERS = "osD^vPX"
_DASHES = ("-", (0, (5, 1, 1, 1)), (0, (5, 1, 1, 1, 1, 1)))  # "--" and ":" mean something


def line_look(number: int) -> dict[str, Any]:
    """Return colour, marker and dashes of the line with a number, for matplotlib's `plot`.

    Lines of one colour have another marker and other dashes.
    """
    turn, at = divmod(number, len(LINES))
    return {
        "color": LINES[at],
        "marker": _MARKERS[(at + turn) % len(_MARKERS)],
        "linestyle": _DASHES[turn % len(_DASHES)],
    }
