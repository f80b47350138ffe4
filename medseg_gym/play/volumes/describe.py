"""Episodes on volumes as JSON: one description for games, policies and recordings.

Masks of slices are named by number and fetched one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medseg_gym.episodes.volumes import SliceState, VolumeEpisode, VolumeState
from medseg_gym.play.describe import describe_prompt
from medseg_gym.play.volumes.masks import first_steps
from medseg_gym.prompts.volumes import Look, SlicePrompt, VolumePrompt


def describe_volume_steps(
    episode: VolumeEpisode,
    rewards: Sequence[float],
    scored: bool,
    since: int = 0,
    with_slices: bool = True,
) -> list[dict[str, Any]]:
    """Describe the steps of an episode on a volume.

    Args:
        episode: Running or over.
        rewards: One per step.
        scored: Include Dice and reward.
        since: Number of steps to leave out at the beginning.
        with_slices: Include the slices after every step.
    """
    first = first_steps(episode) if with_slices else {}
    entries = []
    taken = min(len(episode.steps), len(rewards))  # a policy's thread may add one meanwhile
    for number in range(since, taken):
        step = episode.steps[number]
        entry: dict[str, Any] = {
            "number": number + 1,
            "prompt": _describe_prompt(step.prompt),
            "tool": step.tool,
            "slice": _slice_of(step.prompt),
            "view": step.view,
            "valid": step.valid,
            "error": step.error,
            "voxels": step.state.pixels,
        }
        if with_slices:
            entry["slices"] = describe_slices(step.state, first)
        if scored:
            entry |= {"dice": step.dice, "iou": step.iou, "reward": rewards[number]}
        entries.append(entry)
    return entries


def describe_slices(state: VolumeState, first: Mapping[SliceState, int]) -> dict[str, Any]:
    """Describe the slices that have prompts or a mask, by index.

    Args:
        state: Of an episode.
        first: Its `first_steps`.
    """
    return {str(index): _describe_slice(one, first) for index, one in state.slices.items()}


def _describe_slice(one: SliceState, first: Mapping[SliceState, int]) -> dict[str, Any]:
    box = one.box
    return {
        "mask": first.get(one) if one.pixels else None,
        "pixels": one.pixels,
        "prompted": one.prompted,
        "box": None if box is None else [box.x1, box.y1, box.x2, box.y2],
        "points": [[p.x, p.y, p.positive] for p in one.points],
    }


def _describe_prompt(prompt: VolumePrompt | None) -> dict[str, Any] | None:
    if isinstance(prompt, SlicePrompt):
        described = describe_prompt(prompt.prompt)
        assert described is not None
        return described | {"slice": prompt.slice}
    if isinstance(prompt, Look):
        return {"tool": prompt.tool, "slice": prompt.slice}
    return None if prompt is None else {"tool": prompt.tool}


def _slice_of(prompt: VolumePrompt | None) -> int | None:
    return prompt.slice if isinstance(prompt, (SlicePrompt, Look)) else None


def truth_slices(episode: VolumeEpisode) -> list[int]:
    """Return the slices that show some of the target, ascending."""
    return [index for index, plane in enumerate(episode.case.mask) if plane.any()]
