"""Games on volumes as JSON for the page."""

from __future__ import annotations

import math
from typing import Any

from medseg_gym.episodes.volumes import SliceState, VolumeStep
from medseg_gym.play.volumes.catalog import describe_volume
from medseg_gym.play.volumes.downloads import formats_of
from medseg_gym.play.volumes.games import VolumeGame
from medseg_gym.prompts.volumes import Look, SlicePrompt
from medseg_gym.serving.routes.images import mask_text


def describe_game(game: VolumeGame, since: int = 0) -> dict[str, Any]:
    """Describe a game, without the first `since` steps.

    Masks of slices are named by number and fetched one by one, but for that of the slice in view.
    """
    episode, case = game.episode, game.case
    state = episode.state
    description: dict[str, Any] = {
        "game": game.id,
        "place": game.place.name,
        "index": game.index,
        "case": describe_volume(case),
        "formats": formats_of(case),
        "exam": game.exam,
        "max_steps": episode.max_steps,
        "steps_left": episode.steps_left,
        "done": episode.done,
        "stopped": episode.stopped,
        "taken": len(episode.steps),
        "steps": [
            _describe_step(number, step, game.scored)
            for number, step in enumerate(episode.steps[since:], since + 1)
        ],
        "view": episode.view,
        "voxels": state.pixels,
        "ml": _millilitres(game),
        "slices": {str(index): _describe_slice(game, one) for index, one in state.slices.items()},
    }
    shown = state.slices.get(episode.view)
    if shown is not None and shown.pixels:
        description["mask"] = mask_text(shown.mask(case.width))
    if game.scored:
        description |= {"dice": episode.dice, "start_dice": episode.start_dice}
    if episode.done and case.truth_known:
        description["truth"] = [i for i, plane in enumerate(case.mask) if plane.any()]
    return description


def _describe_step(number: int, step: VolumeStep, scored: bool) -> dict[str, Any]:
    on_slice = isinstance(step.prompt, (SlicePrompt, Look))
    entry: dict[str, Any] = {
        "number": number,
        "tool": step.tool,
        "slice": step.prompt.slice if on_slice else None,  # type: ignore[union-attr]
        "valid": step.valid,
        "error": step.error,
        "voxels": step.state.pixels,
    }
    if scored:
        entry["dice"] = step.dice
    return entry


def _describe_slice(game: VolumeGame, one: SliceState) -> dict[str, Any]:
    box = one.box
    return {
        "mask": game.number_of(one) if one.pixels else None,
        "pixels": one.pixels,
        "prompted": one.prompted,
        "box": None if box is None else [box.x1, box.y1, box.x2, box.y2],
        "points": [[p.x, p.y, p.positive] for p in one.points],
    }


def _millilitres(game: VolumeGame) -> float | None:
    spacing = game.case.spacing
    if spacing is None:
        return None
    return game.episode.state.pixels * math.prod(spacing) / 1000
