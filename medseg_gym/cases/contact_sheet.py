"""Draw a contact sheet: some cases of a source in one image."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import binary_erosion

from medseg_gym.cases.case import Case
from medseg_gym.cases.case_source import CaseSource
from medseg_gym.display.captions import draw_line, font
from medseg_gym.display.palette import MASK_RGB, TRUTH_RGB
from medseg_gym.errors import CaseError

TILE = 240  # pixels of an image's longer edge
_TEXT, _GAP, _LINE = 64, 8, 15
_MASK = np.array(MASK_RGB)


def spread(total: int, count: int) -> list[int]:
    """Choose `count` indices at even distances out of `total`, the first and the last included."""
    if count >= total:
        return list(range(total))
    return [round(i * (total - 1) / max(count - 1, 1)) for i in range(count)]


def draw_sheet(source: CaseSource, count: int, path: Path) -> tuple[Path, list[CaseError]]:
    """Draw cases with the outline and a tint of their truth, and what is known of each below.

    A case that cannot be read gets a tile that says so.

    Args:
        source: Cases.
        count: How many, at even distances.
        path: PNG to write.

    Returns:
        The path, and the errors of the cases that could not be read.

    Raises:
        CaseError: A count below 1, or the file cannot be written.
    """
    if count < 1:
        raise CaseError(f"a sheet needs at least one case, got {count}")
    tiles, errors = [], []
    for index in spread(len(source), count):
        try:
            tiles.append(_tile(source[index]))
        except CaseError as error:
            errors.append(error)
            tiles.append(_refusal(source.keys[index], error))
    columns = ceil(len(tiles) ** 0.5)
    rows = -(-len(tiles) // columns)
    step = (TILE + _GAP, TILE + _TEXT + _GAP)
    sheet = Image.new("RGB", (columns * step[0] + _GAP, rows * step[1] + _GAP), "white")
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        sheet.paste(tile, (_GAP + column * step[0], _GAP + row * step[1]))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, format="PNG")
    except OSError as error:
        raise CaseError(f"{path} cannot be written: {error}") from error
    return path, errors


def _tile(case: Case) -> Image.Image:
    row, column = case.spacing or (1.0, 1.0)  # as it is, not as it was sampled
    height, width = case.height * row, case.width * column
    scale = TILE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = np.asarray(Image.fromarray(case.image).resize(size, Image.Resampling.BILINEAR))
    mask = np.asarray(Image.fromarray(case.mask).resize(size, Image.Resampling.NEAREST))
    pixels = image.copy()
    pixels[mask] = (0.7 * pixels[mask] + 0.3 * _MASK).astype(np.uint8)
    pixels[mask & ~binary_erosion(mask)] = TRUTH_RGB
    area = f"{100 * case.area_fraction:.2f} %" if case.mask.any() else "empty mask"
    facts = f"{case.modality or '?'}, {case.height} x {case.width}, {area}"
    if case.synthetic:
        facts += ", synthetic"
    return _paper(case.target, facts, case.key, Image.fromarray(pixels))


def _refusal(key: str, error: CaseError) -> Image.Image:
    tile = Image.new("RGB", (TILE, TILE), (250, 225, 225))
    words = textwrap.wrap(str(error), 36)[:14]
    ImageDraw.Draw(tile).text((8, 8), "\n".join(words), fill="darkred", font=font(12))
    return _paper("cannot be read", "", key, tile)


def _paper(title: str, facts: str, key: str, tile: Image.Image) -> Image.Image:
    paper = Image.new("RGB", (TILE, TILE + _TEXT), "white")
    paper.paste((238, 238, 238), (0, 0, TILE, TILE))
    paper.paste(tile, ((TILE - tile.width) // 2, (TILE - tile.height) // 2))
    draw = ImageDraw.Draw(paper)
    lines: Sequence[tuple[str, str]] = ((title, "black"), (facts, "dimgray"), (key, "gray"))
    for number, (text, colour) in enumerate(lines):
        at = (2, TILE + 4 + number * (_LINE + 4))
        draw_line(draw, at, TILE - 4, text, keep_end=text is key, fill=colour)
    return paper
