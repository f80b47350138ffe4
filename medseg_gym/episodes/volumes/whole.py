"""Steps of a backbone that segments whole volumes: each prompt makes the masks of all slices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from medseg_gym.backbones.volumes import VolumeBackbone
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.episodes.volumes.decoding import mask_facts
from medseg_gym.episodes.volumes.episode import SliceState, VolumeEpisode
from medseg_gym.episodes.volumes.propagation import Plan
from medseg_gym.errors import BackboneError
from medseg_gym.prompts import AddBox, AddPoint
from medseg_gym.prompts.volumes import SlicePrompt


def prompts_in_force(episode: VolumeEpisode) -> tuple[SlicePrompt, ...]:
    """Return the boxes and clicks of an episode that neither undo nor clear took back, in order."""
    now: tuple[SlicePrompt, ...] = ()
    before: list[tuple[SlicePrompt, ...]] = []
    for step in episode.steps:
        if step.effect == "restore":
            now = before.pop()
        elif step.effect in ("decode", "propagate", "clear"):
            before.append(now)
            if step.effect == "clear":
                now = ()
            elif isinstance(step.prompt, SlicePrompt):
                now = with_prompt(now, step.prompt)
    return now


def with_prompt(prompts: Sequence[SlicePrompt], new: SlicePrompt) -> tuple[SlicePrompt, ...]:
    """Return prompts with a new one; a box takes the place of the one on its slice."""
    if isinstance(new.prompt, AddBox):
        prompts = [
            one for one in prompts if one.slice != new.slice or not isinstance(one.prompt, AddBox)
        ]
    return (*prompts, new)


def segment_whole(
    episode: VolumeEpisode, prompt: SlicePrompt | None, backbone: VolumeBackbone
) -> Plan:
    """Make the masks of all slices; asks for no decode.

    Args:
        episode: As it is before the step.
        prompt: The new box or click; None makes the masks of the prompts in force again.
        backbone: The segmenter.

    Raises:
        BackboneError: It failed, or gave no mask of the volume.
    """
    case = episode.case
    prompts = prompts_in_force(episode)
    if prompt is not None:
        prompts = with_prompt(prompts, prompt)
    mask = backbone.segment_volume(case.image, case.content_hash, prompts)
    if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != case.mask.shape:
        got = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise BackboneError(
            f"{backbone.name}: a bool mask of {case.mask.shape} voxels is needed of volume "
            f"{case.key!r}, got {got}"
        )
    return slice_states(case, mask, prompts, episode.state.slices)
    yield  # a plan that asks for nothing


def slice_states(
    case: VolumeCase,
    mask: np.ndarray,
    prompts: Sequence[SlicePrompt],
    before: Iterable[int] = (),
) -> dict[int, SliceState]:
    """Return the states of slices that have a mask, prompts, or had a state before.

    Args:
        case: The volume.
        mask: (D, H, W) bool.
        prompts: In force, on any slices.
        before: Indices of slices that had a state.
    """
    boxes: dict[int, AddBox] = {}
    points: dict[int, tuple[AddPoint, ...]] = {}
    for one in prompts:
        if isinstance(one.prompt, AddBox):
            boxes[one.slice] = one.prompt
        else:
            points[one.slice] = (*points.get(one.slice, ()), one.prompt)
    marked = np.flatnonzero(mask.any(axis=(1, 2))).tolist()
    states = {}
    for index in sorted({*marked, *boxes, *points, *before}):
        plane = mask[index]
        pixels, extent, grey = mask_facts(plane, case.image[index])
        states[index] = SliceState(
            np.packbits(plane, axis=1),
            pixels,
            int(np.count_nonzero(plane & case.mask[index])),
            extent,
            grey,
            None,
            boxes.get(index),
            points.get(index, ()),
        )
    return states
