"""The best, the median and the worst case of every policy, so that means hide nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from medseg_agents.evaluation.case_record import CaseRecord
from medseg_agents.evaluation.volumes.packed_masks import unpack_mask
from medseg_gym.cases import CaseSource
from medseg_gym.envs.rendering import BACKGROUND, add_caption, draw_case, on_square
from medseg_gym.storage.atomic_write import atomic_path

SIDE, GAP = 220, 6
"""Longer edge of an image and the room between two, in pixels."""


def draw_overlays(
    records: Mapping[str, Sequence[CaseRecord]], source: CaseSource, path: Path
) -> bool:
    """Draw three cases of every policy, a row each: the image with the truth, then the mask on it.

    Cases whose image shows the target go before those where an empty mask scores 1.

    Args:
        records: By policy, with their masks; others are left out.
        source: That has the cases.
        path: Of the PNG.

    Returns:
        Whether there was anything to draw.
    """
    rows = []
    for name, members in records.items():
        kept = [record for record in members if record.mask]
        kept = [record for record in kept if record.area] or kept
        if kept:
            rows.append(np.concatenate(_row(name, kept, source), 1))
    if rows:
        with atomic_path(path) as temporary:
            sheet = Image.fromarray(np.concatenate(rows))
            sheet.quantize(256).save(temporary, format="PNG", optimize=True)
    return bool(rows)


def _row(name: str, records: Sequence[CaseRecord], source: CaseSource) -> list[np.ndarray]:
    ordered = sorted(records, key=lambda record: (-record.dice[-1], record.case))
    tiles = []
    for label, record in (
        ("best", ordered[0]),
        ("median", ordered[len(ordered) // 2]),
        ("worst", ordered[-1]),
    ):
        case = source[source.index_of(record.case)]
        origin = "synthetic" if case.synthetic else case.modality
        tiles += [
            tile(case.image, None, case.mask, (case.key, ""), (case.target, origin)),
            tile(
                case.image,
                unpack_mask(record.mask),
                case.mask,
                (name, ""),
                (f"{label} of {len(records)}", f"Dice {record.dice[-1]:.3f}"),
            ),
        ]
    return tiles


def tile(
    image: np.ndarray,
    mask: np.ndarray | None,
    truth: np.ndarray,
    *lines: str | tuple[str, str],
) -> np.ndarray:
    """Draw an image with a mask and the truth's outline on a square, lines of text under it.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W) bool, or None.
        truth: (H, W) bool.
        *lines: See `add_caption`.

    Returns:
        (h, w, 3) uint8, all with as many lines alike in size.
    """
    drawn = on_square(draw_case(image, mask, truth, side=SIDE), SIDE)
    captioned = add_caption(drawn, lines)
    height, width, _ = captioned.shape
    framed = np.full((height + GAP, width + GAP, 3), BACKGROUND, np.uint8)
    framed[:height, :width] = captioned
    return framed
