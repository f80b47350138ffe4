"""Episodes as JSON for the page: one description for games, policies and recordings."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from medseg_gym.cases import Case
from medseg_gym.cases.image_files.images import png_bytes
from medseg_gym.episodes import Episode, MaskState
from medseg_gym.prompts import AddBox, AddPoint, Prompt
from medseg_gym.serving.routes.images import mask_text


def describe_prompt(prompt: Prompt | None) -> dict[str, Any] | None:
    """Describe a prompt, with coordinates as fractions of width and height; None if unreadable."""
    if prompt is None:
        return None
    if isinstance(prompt, AddBox):
        return {"tool": prompt.tool, "box": [prompt.x1, prompt.y1, prompt.x2, prompt.y2]}
    if isinstance(prompt, AddPoint):
        return {"tool": prompt.tool, "point": [prompt.x, prompt.y]}
    return {"tool": prompt.tool}


def describe_steps(
    episode: Episode, rewards: Sequence[float], scored: bool, since: int = 0
) -> list[dict[str, Any]]:
    """Describe the steps of an episode, with the mask after each.

    Args:
        episode: Running or over.
        rewards: One per step.
        scored: Include Dice, IoU and reward; False during an exam, or without a known truth.
        since: Number of steps to leave out at the beginning.
    """
    entries = []
    taken = min(len(episode.steps), len(rewards))  # a policy's thread may add one meanwhile
    for number in range(since, taken):
        step = episode.steps[number]
        entry: dict[str, Any] = {
            "number": number + 1,
            "prompt": describe_prompt(step.prompt),
            "tool": step.tool,
            "valid": step.valid,
            "error": step.error,
            "pixels": step.state.pixels,
            **describe_state(step.state),
        }
        if scored:
            entry |= {"dice": step.dice, "iou": step.iou, "reward": rewards[number]}
        entries.append(entry)
    return entries


def describe_state(state: MaskState) -> dict[str, Any]:
    """Describe the mask, box and clicks of a state."""
    box = state.box
    return {
        "mask": mask_text(state.mask) if state.pixels else None,
        "box": None if box is None else [box.x1, box.y1, box.x2, box.y2],
        "points": [[p.x, p.y, p.positive] for p in state.points],
    }


def truth_text(case: Case) -> str:
    """Encode the ground truth as base64 of a PNG."""
    return base64.b64encode(png_bytes(case.mask)).decode()
