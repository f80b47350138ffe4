"""Drawings of volume episodes: the slice in view, and what an action led to."""

from __future__ import annotations

import numpy as np

from medseg_gym.envs.rendering import add_caption, draw_case
from medseg_gym.episodes.volumes import VolumeEpisode


def draw_volume_episode(
    episode: VolumeEpisode, side: int = 384, step: int | None = None
) -> np.ndarray:
    """Draw the slice in view with a caption under it.

    Args:
        episode: What to draw.
        side: Longer edge of the image, in pixels.
        step: After how many steps; None is now.

    Returns:
        (h, w, 3) uint8, all steps of one episode alike in size.
    """
    case = episode.case
    taken = len(episode.steps) if step is None else step
    newest = episode.steps[taken - 1] if taken else None
    state, view, dice = episode.start, case.depth // 2, episode.start_dice
    if newest is not None:
        state, view, dice = newest.state, newest.view, newest.dice
    one = state.slices.get(view)
    box, points = (None, ()) if one is None else (one.box, one.points)
    mask = np.zeros(case.mask.shape[1:], bool) if one is None else one.mask(case.width)
    drawing = draw_case(case.rgb(view), mask, case.mask[view], box, points, side)
    action = "start"
    if newest is not None:
        action = (newest.tool or "unreadable") + ("" if newest.valid else " (invalid)")
    synthetic = " (synthetic)" if case.synthetic else ""
    lines = (
        (f"{case.target}{synthetic}", f"slice {view + 1}/{case.depth}"),
        (f"{taken}/{episode.max_steps} {action}", f"3D Dice {dice:.3f}"),
    )
    return add_caption(drawing, lines)
