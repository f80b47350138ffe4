"""Masks of slices of an episode by number, and what an episode takes of the memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medseg_gym.episodes.volumes import SliceState, VolumeEpisode, VolumeState, VolumeStep


def first_steps(episode: VolumeEpisode) -> dict[SliceState, int]:
    """Return, for the state of a slice, the number of the first step after which it was there.

    It names the slice's mask: the same number after an undo, another one for another mask.
    """
    first: dict[SliceState, int] = {}
    for number, step in enumerate(list(episode.steps), 1):
        for one in step.state.slices.values():
            first.setdefault(one, number)
    return first


def mask_after(episode: VolumeEpisode, index: int, number: int) -> np.ndarray | None:
    """Return the mask of a slice after a step, (H, W) bool; None where it has none there.

    Args:
        episode: Running or over.
        index: Of the slice.
        number: Of the step, from 1.
    """
    if not 1 <= number <= len(episode.steps):
        return None
    one = episode.steps[number - 1].state.slices.get(index)
    return None if one is None else one.mask(episode.case.width)


def nbytes(episode: VolumeEpisode) -> int:
    """Bytes of the volume and of the masks and logits of all steps, which undo needs."""
    states = {one for step in episode.steps for one in step.state.slices.values()}
    masks = sum(int(one.bits.nbytes) for one in states)
    logits = sum(int(one.logits.nbytes) for one in states if one.logits is not None)
    return int(episode.case.image.nbytes) + masks + logits


def without_logits(episode: VolumeEpisode) -> VolumeEpisode:
    """Return a finished episode with its masks and prompts alone, for showing it."""
    slices: dict[SliceState, SliceState] = {}
    states: dict[VolumeState, VolumeState] = {}

    def bare(one: SliceState) -> SliceState:
        return slices.setdefault(one, replace(one, logits=None, mask_input=None))

    steps: list[VolumeStep] = []
    for step in episode.steps:
        if step.state not in states:
            kept = {index: bare(one) for index, one in step.state.slices.items()}
            states[step.state] = replace(step.state, slices=kept)
        steps.append(replace(step, state=states[step.state]))
    return VolumeEpisode(episode.case, episode.max_steps, steps, list(episode.rewards))
