"""Play stored prompts again and compare masks, Dice and rewards.

The tolerance is that of the whole suite: a mask pixel must agree wherever its logit is farther than
1e-3 from 0, Dice and reward within 1e-3, because the last bits of floating point depend on the
batch. The `ellipse` backbone computes every pixel on its own and agrees exactly. In a volume, a
pixel may also move the box by which a mask is carried on, so that later slices differ by more: a
replay with as many episodes at once as were recorded is the likeliest to agree.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch

from medseg_gym import backbones
from medseg_gym.backbones import Backbone
from medseg_gym.backbones.registry import is_service
from medseg_gym.episodes import DecodeOptions, Episode, EpisodeEngine, rewards
from medseg_gym.episodes.volumes import PropagationOptions, VolumeEngine, VolumeEpisode
from medseg_gym.errors import BackboneError, MedSegError
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.replaying.rebuild import AnyCases, StoredCases
from medseg_gym.trajectories.store.reader import TrajectoryStore
from medseg_gym.trajectories.trajectory import EpisodeFacts, EpisodeKey, Trajectory

LOGIT_TOLERANCE = 1e-3
SCORE_TOLERANCE = 1e-3

AnyEngine = EpisodeEngine | VolumeEngine


@dataclass
class Replayed:
    """Result of a replay.

    Args:
        episodes: Played again.
        steps: Taken again.
        exact: Steps that agree in every bit.
        pixels: Mask pixels that differ, all of them within the tolerance or listed as mismatches.
        max_dice: Largest difference of a Dice.
        max_reward: Largest difference of a reward.
        rewards_skipped: Episodes whose reward has no name, so that it was not compared.
        mismatches: (key, step, what) of everything outside the tolerance.
    """

    episodes: int = 0
    steps: int = 0
    exact: int = 0
    pixels: int = 0
    max_dice: float = 0.0
    max_reward: float = 0.0
    rewards_skipped: int = 0
    mismatches: list[tuple[EpisodeKey, int, str]] = field(default_factory=list)


def replay_store(
    store: TrajectoryStore,
    backbone: str | Backbone | None = None,
    checkpoint: str | None = None,
    device: str = "auto",
    cases: AnyCases = None,
    num_envs: int = 8,
    limit: int | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Replayed:
    """Play every finished episode again, several at once.

    Args:
        store: To read.
        backbone: Who segments; None loads the recorded one by its name.
        checkpoint: Weight file; None finds the official one.
        device: See `backbones.load`.
        cases: See `StoredCases`.
        num_envs: Episodes played at once.
        limit: Only the first so many.
        on_batch: Called with the number of episodes after each batch.

    Raises:
        TrajectoryError: Cases or backbone are not at hand or are not the recorded ones.
    """
    result = Replayed()
    where = StoredCases(cases)
    for batch in _batches(islice(store, limit), num_envs):
        facts = batch[0].facts
        engine = _engine(facts, len(batch), backbone, checkpoint, device)
        find = where.find if facts.depth is None else where.find_volume
        _replay(engine, batch, [find(one) for one in batch], result)
        if on_batch:
            on_batch(len(batch))
    return result


def _settings(facts: EpisodeFacts) -> str:
    kind = [facts.backbone, facts.checkpoint_hash, facts.depth is None]
    return json.dumps([kind, dict(facts.options)], sort_keys=True)


def _batches(trajectories: Iterator[Trajectory], size: int) -> Iterator[list[Trajectory]]:
    """Up to `size` neighbours that one engine can play."""
    batch: list[Trajectory] = []
    for one in trajectories:
        if batch and (len(batch) == size or _settings(one.facts) != _settings(batch[0].facts)):
            yield batch
            batch = []
        batch.append(one)
    if batch:
        yield batch


def _engine(
    facts: EpisodeFacts,
    slots: int,
    backbone: str | Backbone | None,
    checkpoint: str | None,
    device: str,
) -> AnyEngine:
    options: dict[str, Any] = dict(facts.options)
    recorded = _recorded_options(facts) if backbone is None else {}
    try:
        loaded = backbones.load(
            facts.backbone if backbone is None else backbone,
            checkpoint,
            device if isinstance(backbone, str) or backbone is None else "auto",
            **recorded,
        )
    except BackboneError as error:
        raise TrajectoryError(
            f"the recorded backbone {facts.backbone!r} is not at hand, name or pass one: {error}"
        ) from None
    if loaded.name != facts.backbone:
        raise TrajectoryError(
            f"episodes were recorded with backbone {facts.backbone!r}, not {loaded.name!r}"
        )
    reward: str = options["reward"]
    try:
        rewards.make(reward)
    except MedSegError:
        reward = "dice_gain"  # not compared, see _has_named_reward
    decode = DecodeOptions(
        prompt_memory=options["prompt_memory"],
        mask_input=options["mask_input"],
        multimask=options["multimask"],
        text_prompt=options.get("text_prompt", False),  # absent from older records
    )
    if facts.depth is None:
        return EpisodeEngine(loaded, slots, reward, options["max_steps"], decode)
    propagation = PropagationOptions.from_mapping(options["propagation"], "recorded propagation")
    return VolumeEngine(loaded, slots, reward, options["max_steps"], decode, propagation)


def _recorded_options(facts: EpisodeFacts) -> dict[str, Any]:
    """Options of the recorded backbone that somebody else's store may decide.

    Raises:
        TrajectoryError: The backbone is a service on another machine: images and keys go only
            where the user says.
    """
    recorded = dict(facts.options.get("backbone_options") or {})
    options = {k: v for k, v in recorded.items() if k not in ("key", "store", "cache_bytes")}
    if not is_service(facts.backbone):
        return options
    if not _is_on_this_machine(facts.backbone):
        raise TrajectoryError(
            f"the store says that its masks came from the service {facts.backbone!r}; if images "
            f"and your key may be sent there, name it: --backbone {facts.backbone}"
        )
    return {**options, "key": ""}


def _is_on_this_machine(service: str) -> bool:
    address = service.partition(":")[2]
    try:
        host = urlsplit(address if "//" in address[:8] else f"//{address}").hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _has_named_reward(facts: EpisodeFacts) -> bool:
    try:
        rewards.make(facts.options["reward"])
    except MedSegError:
        return False
    return True


def _replay(
    engine: AnyEngine, batch: Sequence[Trajectory], cases: Sequence[Any], summary: Replayed
) -> None:
    episodes: Sequence[Episode | VolumeEpisode] = engine.reset(range(len(batch)), cases)
    named = _has_named_reward(batch[0].facts)
    summary.episodes += len(batch)
    summary.rewards_skipped += 0 if named else len(batch)
    masks = [one.masks for one in batch]
    for number in range(max(len(one.steps) for one in batch)):
        slots = [i for i, one in enumerate(batch) if number < len(one.steps)]
        prompts: list[Any] = [batch[slot].steps[number].prompt for slot in slots]
        results = engine.step(slots, prompts)
        for slot, result in zip(slots, results, strict=True):
            key, step, episode = batch[slot].key, batch[slot].steps[number], episodes[slot]
            summary.steps += 1
            problems = []
            if (episode.steps[-1].valid, episode.steps[-1].tool) != (step.valid, step.tool):
                problems.append("validity or tool differs")
            if isinstance(engine, VolumeEngine):
                assert isinstance(episode, VolumeEpisode)
                pixels, far = _compare_volumes(engine, episode, masks[slot][number])
            else:
                assert isinstance(episode, Episode)
                pixels, far = _compare_masks(engine.backbone, episode, masks[slot][number])
            if far:
                problems.append(f"{far} mask pixels differ with |logit| > {LOGIT_TOLERANCE:g}")
            dice = _gap(episode.dice, step.dice)
            reward = _gap(result.reward, step.reward) if named else 0.0
            for name, gap in (("Dice", dice), ("reward", reward)):
                if not gap <= SCORE_TOLERANCE:
                    problems.append(f"{name} differs by {gap:.3g}")
            summary.pixels += pixels
            summary.exact += not (pixels or dice or reward or problems)
            summary.max_dice, summary.max_reward = (
                max(summary.max_dice, dice),
                max(summary.max_reward, reward),
            )
            if problems:
                summary.mismatches.append((key, number, "; ".join(problems)))


def _gap(new: float, stored: float) -> float:
    """Return the distance of two scores; both are NaN where the truth is not known."""
    return 0.0 if math.isnan(new) and math.isnan(stored) else abs(new - stored)


def _compare_masks(backbone: Backbone, episode: Episode, stored: np.ndarray) -> tuple[int, int]:
    """Pixels that differ, and those of them whose logit is not close to 0."""
    state = episode.state
    differ = state.mask.cpu() ^ torch.from_numpy(stored)
    pixels = int(differ.sum())
    if not pixels or state.logits is None or episode.embedding is None:
        return pixels, pixels
    with torch.inference_mode():
        (logits,) = backbone.to_image(state.logits[None], [episode.embedding])
    far = differ & (logits.cpu().abs() > LOGIT_TOLERANCE)
    return pixels, int(far.sum())


def _compare_volumes(
    engine: VolumeEngine, episode: VolumeEpisode, stored: np.ndarray
) -> tuple[int, int]:
    """The same in a volume, slice by slice."""
    differ = episode.mask() ^ stored
    far = 0
    for index in np.flatnonzero(differ.any(axis=(1, 2))).tolist():
        logits = engine.decoder.image_logits(episode.case, index, episode.state.slices.get(index))
        close = np.zeros(differ.shape[1:], bool) if logits is None else logits <= LOGIT_TOLERANCE
        far += int(np.count_nonzero(differ[index] & ~close))
    return int(np.count_nonzero(differ)), far
