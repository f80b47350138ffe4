"""Texts under images: cut with an ellipsis where they would run out of their room."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import ImageFont

LARGEST, SMALLEST = 13, 10
"""Sizes of the letters, in pixels: a text that is too long becomes smaller before it is cut."""


@lru_cache(maxsize=8)
def font(size: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which matplotlib brings along, in a size in pixels."""
    from matplotlib import get_data_path  # not above: frames of an environment are drawn without

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)


def fit_text(
    text: str, width: float, keep_end: bool = False, size: int = LARGEST
) -> tuple[str, ImageFont.FreeTypeFont]:
    """Fit a text into one line.

    Args:
        text: What has no letter becomes a question mark.
        width: Of the line, in pixels.
        keep_end: Cut the beginning, as of a path, not the end.
        size: Of the letters at most, in pixels.

    Returns:
        The text, cut with an ellipsis if need be, and its font.
    """
    text = "".join(character if character.isprintable() else "?" for character in text)
    letters = font(size)
    for smaller in range(size, min(size, SMALLEST) - 1, -1):
        letters = font(smaller)
        if letters.getlength(text) <= width:
            return text, letters
    while text and letters.getlength(text + "…") > width:
        text = text[1:] if keep_end else text[:-1]
    return ("…" + text if keep_end else text + "…"), letters


def draw_line(
    draw: Any,
    place: tuple[float, float],
    width: float,
    text: str,
    right: str = "",
    keep_end: bool = False,
    fill: str = "white",
) -> None:
    """Draw a line of text, and a second one at its right end that is never cut for the first.

    Args:
        draw: Of an image (`PIL.ImageDraw.Draw`).
        place: Left upper corner, in pixels.
        width: In pixels.
        text: On the left.
        right: On the right.
        keep_end: As in `fit_text`, of `text`.
        fill: Colour.
    """
    if right:
        right, letters = fit_text(right, width)
        taken = letters.getlength(right)
        draw.text((place[0] + width - taken, place[1]), right, fill=fill, font=letters)
        width -= taken + 6
    text, letters = fit_text(text, width, keep_end)
    if width > 0:
        draw.text(place, text, fill=fill, font=letters)
