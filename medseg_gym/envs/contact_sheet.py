"""Contact sheets and animated GIFs of finished episodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from medseg_gym.envs.rendering import add_caption, draw_case, draw_episode
from medseg_gym.envs.volumes.drawing import draw_volume_episode
from medseg_gym.episodes import Episode
from medseg_gym.episodes.volumes import VolumeEpisode

_MARGIN = 6


def contact_sheet(
    episodes: Sequence[tuple[str, Episode | VolumeEpisode]], path: str | Path, side: int = 200
) -> Path:
    """Write one row per episode: image, truth, then prompts, mask and Dice after each step.

    Of a volume, image and truth are the slice that shows most of the target, and every step is the
    slice in view.

    Args:
        episodes: (label, episode) pairs; the label is shown under the image.
        path: Of the PNG.
        side: Longer edge of each image, in pixels.

    Returns:
        The path.
    """
    rows = []
    for label, episode in episodes:
        case, steps = episode.case, range(1, len(episode.steps) + 1)
        origin = "synthetic" if case.synthetic else f"{case.modality}, {case.source}"
        if isinstance(episode, VolumeEpisode):
            key = int(case.mask.sum(axis=(1, 2)).argmax())
            image, truth = episode.case.rgb(key), case.mask[key]
            drawn = [draw_volume_episode(episode, side, step) for step in steps]
        else:
            image, truth = case.image, case.mask
            drawn = [draw_episode(episode, side, step) for step in steps]
        tiles = [
            add_caption(draw_case(image, side=side), (label, case.key)),
            add_caption(
                draw_case(image, truth=truth, side=side), (f"truth ({origin})", case.target)
            ),
        ]
        rows.append(tiles + drawn)
    width = max(len(tiles) for tiles in rows) * (side + _MARGIN)
    height = sum(max(tile.shape[0] for tile in tiles) + _MARGIN for tiles in rows)
    sheet = np.full((height, width, 3), 24, np.uint8)
    top = 0
    for tiles in rows:
        for column, tile in enumerate(tiles):
            left = column * (side + _MARGIN)
            sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile[:, :side]
        top += max(tile.shape[0] for tile in tiles) + _MARGIN
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # 256 colours do for grey images with a few marks, at a third of the bytes.
    Image.fromarray(sheet).quantize(256).save(path, optimize=True)
    return path


def episode_gif(
    episode: Episode, path: str | Path, side: int = 384, seconds_per_step: float = 0.9
) -> Path:
    """Write an animated GIF with a frame before the first step and one after each.

    Args:
        episode: To show.
        path: Of the GIF.
        side: Longer edge of the image, in pixels.
        seconds_per_step: How long each frame stays; the last one stays twice as long.

    Returns:
        The path.
    """
    frames = [
        Image.fromarray(draw_episode(episode, side, step)) for step in range(len(episode.steps) + 1)
    ]
    durations = [int(seconds_per_step * 1000)] * len(frames)
    durations[-1] *= 2
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return path
