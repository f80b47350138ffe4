"""Pictures of two runs: Dice against Dice, and the cases that differ most."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np
from PIL import Image

from medseg_agents.evaluation.case_record import EpisodeRecord
from medseg_agents.evaluation.figures.overlays import tile
from medseg_agents.evaluation.paired.pairing import Pair
from medseg_agents.evaluation.volumes.episode_record import VolumeEpisodeRecord
from medseg_agents.evaluation.volumes.packed_masks import unpack_mask, unpack_volume
from medseg_gym.cases import Case, CaseSource
from medseg_gym.display.palette import BLUE, GREY, ORANGE
from medseg_gym.display.plots import drawing, fold
from medseg_gym.envs.rendering import BACKGROUND
from medseg_gym.storage.atomic_write import atomic_path

_COLUMNS = 4


@drawing()
def plot_scatter(pairs: Sequence[Pair], path: Path) -> None:
    """Draw the second run's Dice against the first one's, a panel per pair, a point per case."""
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(pairs))
    rows = ceil(len(pairs) / columns)
    figure = Figure(figsize=(4.2 * columns, 4.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(pairs) :]:
        panel.set_axis_off()
    for panel, pair in zip(panels, pairs, strict=False):
        dice = np.array([(a.dice[-1], b.dice[-1]) for a, b in pair.records])
        panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
        above = dice[:, 1] >= dice[:, 0]
        for members, colour, marker in ((above, BLUE, "o"), (~above, ORANGE, "v")):
            panel.scatter(*dice[members].T, s=16, c=colour, marker=marker, alpha=0.6, linewidths=0)
        panel.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        panel.set_xlabel(fold(f"first: {pair.first.name}", 46), fontsize=8)
        panel.set_ylabel(fold(f"second: {pair.second.name}", 46), fontsize=8)
        lower = int((~above).sum())
        panel.set_title(f"Dice of {len(dice)} cases: second lower in {lower} (orange)", fontsize=8)
        panel.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def draw_differences(
    chosen: Sequence[tuple[Pair, EpisodeRecord, EpisodeRecord]], source: CaseSource, path: Path
) -> list[str]:
    """Draw cases, a row each: image with the truth's outline, then the masks of both runs.

    Of a whole volume the slice with the target is drawn in which the two masks differ most.

    Where a run kept no masks, its tile is the image with the numbers alone.

    Args:
        chosen: The cases with their records in both runs.
        source: That has them.
        path: Of the PNG.

    Returns:
        Keys of the cases that the source does not have, which are left out.
    """
    lines, missing = [], []
    for pair, first, second in chosen:
        shown = _shown(source, first, second)
        if shown is None:
            missing.append(first.case)
            continue
        case, place, masks = shown
        gain = second.dice[-1] - first.dice[-1]
        origin = "synthetic" if case.synthetic else case.modality
        key = f"{case.key}{place}"
        tiles = [tile(case.image, None, case.mask, key, (case.target, origin))]
        for name, row, record, mask in (
            ("first", pair.first, first, masks[0]),
            ("second", pair.second, second, masks[1]),
        ):
            score = f"{'3D ' * pair.of_volumes}Dice {record.dice[-1]:.3f}"
            if name == "second":
                score += f" ({gain:+.3f})"
            what = score if record.mask else f"{score}, mask not kept"
            tiles.append(tile(case.image, mask, case.mask, f"{name}: {row.name}", what))
        lines.append(np.concatenate(tiles, 1))
    if lines:
        columns = 2 if len(lines) > 3 else 1
        while len(lines) % columns:
            lines.append(np.full_like(lines[0], BACKGROUND[0]))
        sheet = [np.concatenate(lines[i : i + columns], 1) for i in range(0, len(lines), columns)]
        with atomic_path(path) as temporary:
            Image.fromarray(np.concatenate(sheet)).save(temporary, format="PNG", optimize=True)
    return missing


def _shown(
    source: CaseSource, first: EpisodeRecord, second: EpisodeRecord
) -> tuple[Case, str, list[np.ndarray | None]] | None:
    """Return the image of a case, which part of it that is, and the masks of both runs there."""
    if not isinstance(first, VolumeEpisodeRecord):
        if first.case not in source.keys:
            return None
        case = source[source.index_of(first.case)]
        return case, "", [unpack_mask(one.mask) if one.mask else None for one in (first, second)]
    volumes = source.volumes
    if volumes is None or first.case not in volumes.keys:
        return None
    volume = volumes[volumes.index_of(first.case)]
    whole = [unpack_volume(one.mask, first.shape) for one in (first, second)]
    differing = (whole[0] != whole[1]).sum((1, 2))
    of_target = differing * volume.mask.any((1, 2))
    index = int((of_target if of_target.any() else differing).argmax())
    case = Case(
        volume.key,
        volume.rgb(index),
        volume.mask[index],
        volume.target,
        volume.modality,
        synthetic=volume.synthetic,
    )
    return case, f", slice {index}", [mask[index] for mask in whole]
