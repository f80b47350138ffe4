"""One image from a file, one target in words, one policy: a mask, images and a record.

Without a truth nothing is scored: no Dice is invented, and policies that are shown the truth
refuse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import medseg_gym
from medseg_agents import policies
from medseg_agents.evaluation.medsam_agent_results import write_json
from medseg_agents.evaluation.options import RunOptions
from medseg_gym.cases.image_files.images import png_bytes
from medseg_gym.cases.image_files.one_image import read_case
from medseg_gym.envs.rendering import add_caption, draw_case
from medseg_gym.episodes import Episode
from medseg_gym.episodes.volumes import VolumeEpisode
from medseg_gym.errors import PolicyError
from medseg_gym.policy import GivenUp, Played, close_policy, play_or_give_up
from medseg_gym.prompts import AddBox, AddPoint, encode_tool_call
from medseg_gym.prompts.volumes import encode_volume_call
from medseg_gym.storage.atomic_write import atomic_write


def run_image(
    image: Path, options: RunOptions, out: Path, mask: Path | None = None
) -> dict[str, Any]:
    """Segment one image and write `mask.png`, `step_N.png` and `record.json`.

    Args:
        image: See `read_case`.
        options: How.
        out: Folder; made if it is not there.
        mask: Truth; without it nothing is scored.

    Returns:
        What `record.json` holds.

    Raises:
        CaseError: Image or mask cannot be used.
        PolicyError: The policy cannot be used, or it is shown the truth and there is none.
        CaseFailed: A model's server failed on it; `record.json` says so, and there is no mask.
        MedSegError: The backbone cannot be used, or a model's server.
    """
    case = read_case(
        image,
        options.target,
        mask,
        options.modality,
        options.window,
        options.mask_channel,
        options.orientation,
    )
    policy_spec = policies.make(options.policy)
    if policy_spec.plays_volumes:
        raise PolicyError(
            f"policy {policy_spec.name!r} plays whole volumes, and {image} is one image; give a "
            "scan, or a policy of images"
        )
    envs = policy_spec.make_envs(
        1,
        cases=[case],
        backbone=options.backbone,
        checkpoint=options.checkpoint,
        device=options.device,
        max_steps=options.max_steps,
        reward=options.reward,
        **options.prompt_arguments(),
    )
    policy = policy_spec.build(envs)
    try:
        if policy.sees_truth and mask is None:
            raise PolicyError(
                f"policy {policy.name!r} is shown the truth, and there is none; give --mask TRUTH, "
                "or a policy that needs no truth"
            )
        ((played,),) = play_or_give_up(envs, policy, [case.key], options.seed)
        record = {
            "image": str(image),
            "size": [case.image.shape[1], case.image.shape[0]],
            "target": case.target,
            "truth": None if mask is None else str(mask),
            "medseg_gym": medseg_gym.__version__,
            "policy": policy.name,
            "oracle": policy.sees_truth,
            "backbone": envs.backbone.name,
            "trained_for": sorted(envs.backbone.trained_kinds),
            "options": {**options.to_mapping(), "view": envs.view.settings},
            **outcome_of_case(played, scored=mask is not None),
        }
        usage = getattr(policy, "usage", None)
        if is_dataclass(usage) and not isinstance(usage, type):
            record["usage"] = asdict(usage)
    finally:
        close_policy(policy)
        envs.close()
    episode = played.episode
    out.mkdir(parents=True, exist_ok=True)
    for stale in (out / "mask.png", *out.glob("step_*.png")):  # of an earlier run
        stale.unlink(missing_ok=True)
    if isinstance(played, GivenUp):
        write_json(record, out / "record.json")
        raise played.error
    atomic_write(out / "mask.png", png_bytes(episode.state.mask.cpu().numpy()))
    for step in range(len(episode.steps) + 1):
        drawn = draw_step(episode, step, options.side, scored=mask is not None)
        Image.fromarray(drawn).save(out / f"step_{step}.png")
    write_json(record, out / "record.json")
    return record


def outcome_of_case(played: Played | GivenUp, scored: bool) -> dict[str, Any]:
    """Return the steps and the outcome of a case, an image or a volume, for a record.

    Args:
        played: The case, played or given up.
        scored: Whether there is a truth to score with.
    """
    if isinstance(played, GivenUp):
        return _what_was_given_up(played)
    return _what_happened(played, scored)


def _what_was_given_up(given_up: GivenUp) -> dict[str, Any]:
    """The reason, and the steps before; no score, and no mask that somebody might take for one."""
    steps = _steps(given_up.episode, given_up.answers)
    return {"failed": str(given_up.error), "steps": steps, "seconds": given_up.seconds}


def _what_happened(played: Played, scored: bool) -> dict[str, Any]:
    episode = played.episode
    steps = _steps(episode, played.answers)
    if scored:
        for entry, step, reward in zip(steps, episode.steps, played.rewards, strict=True):
            entry |= {"dice": step.dice, "iou": step.iou, "reward": reward}
    outcome: dict[str, Any] = {
        "steps": steps,
        "stopped": episode.stopped,
        "mask_pixels": episode.state.pixels,
        "seconds": played.seconds,
    }
    return outcome | ({"dice": episode.dice, "iou": episode.iou} if scored else {})


def _steps(episode: Any, answers: Sequence[str]) -> list[dict[str, Any]]:
    height, width = episode.case.mask.shape[-2:]
    write: Any = encode_volume_call if isinstance(episode, VolumeEpisode) else encode_tool_call
    steps = []
    for number, step in enumerate(episode.steps):
        entry: dict[str, Any] = {
            "tool": step.tool,
            "call": write(step.prompt) if step.prompt else "",
            "pixels": _pixels(getattr(step.prompt, "prompt", step.prompt), width, height),
            "valid": step.valid,
            "error": step.error,
            "mask_pixels": step.state.pixels,
        }
        if answers:
            entry["answer"] = answers[number]
        steps.append(entry)
    return steps


def _pixels(prompt: Any, width: int, height: int) -> list[float] | None:
    """Return the position of a prompt in pixels of the image from its upper left corner."""
    fractions: tuple[float, ...]
    if isinstance(prompt, AddBox):
        fractions = (prompt.x1, prompt.y1, prompt.x2, prompt.y2)
    elif isinstance(prompt, AddPoint):
        fractions = (prompt.x, prompt.y)
    else:
        return None
    return [round(v * size, 2) for v, size in zip(fractions, (width, height) * 2, strict=False)]


def draw_step(episode: Episode, step: int, side: int, scored: bool, place: str = "") -> np.ndarray:
    """The image with mask and prompts after so many steps, and a caption.

    Args:
        episode: That was played.
        step: After how many steps.
        side: Longer edge, in pixels.
        scored: Show the truth's outline and Dice.
        place: What the second line of the caption begins with.

    Returns:
        (h, w, 3) uint8.
    """
    newest = episode.steps[step - 1] if step else None
    state = newest.state if newest else episode.start
    truth = episode.case.mask if scored else None
    frame = draw_case(
        episode.case.image, state.mask.cpu().numpy(), truth, state.box, state.points, side
    )
    action = "start"
    if newest is not None:
        action = (newest.tool or "unreadable") + ("" if newest.valid else " (invalid)")
    dice = newest.dice if newest else episode.start_dice
    score = f"Dice {dice:.3f}" if scored else ""
    taken = f"{place}{step}/{episode.max_steps} {action}"
    return add_caption(frame, (episode.case.target, (taken, score)))
