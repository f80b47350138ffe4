"""Learner connectors: episodes to rows of tokens, and the advantages of their turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID

from medseg_agents.grpo.advantages import (
    batch_advantages,
    group_advantages,
    leave_one_out,
    normalize_then_sum,
    reward_to_go,
    turn_gae,
    weighted_rewards,
)
from medseg_agents.grpo.errors import LostGroups
from medseg_agents.grpo.objective import OverLearners
from medseg_agents.grpo.option_groups import AdvantageSettings
from medseg_agents.grpo.rollout.collate import collate
from medseg_agents.grpo.rollout.token_rows import HashedImage, TokenRow, TurnTokens, rows_of
from medseg_agents.grpo.sharding.agreement import pad_to_all

ROWS = "token_rows"
"""Column of the rows, a list of `TokenRow`."""

FINAL_ROWS = "final_rows"
"""Column of rows that are not learned from: what truncated episodes would have gone on from."""

PROMPT, TOKENS, LOG_PROBS, NUM_IMAGES = "prompt", "tokens", "token_log_probs", "num_images"
CUT, TERMS = "cut", "reward_terms"
"""Names of what a runner keeps of each turn among an episode's extra model outputs: of the model,
whether its completion was cut at the limit of tokens, and the terms of the reward by name."""

FINAL_PROMPT = "final_prompt"
"""Entry of a truncated episode's `custom_data`, where there is a value head: the prompt after its
last turn, and how many of the newest images it shows."""

GROUP = "group"
"""Entry of an episode's `custom_data` with the number of its group."""

DICE = "dice"
"""Entry of an episode's `custom_data` with its final Dice."""

IMAGES_BEFORE = "images_before"
"""Entry of an episode's `custom_data` with images that its first prompt holds beside its own: those
of the trunk's turns that it branched from."""


class TurnsToTokens(ConnectorV2):
    """Turns of the episodes as rows of tokens.

    Args:
        mask_truncated: Take tokens of completions that were cut at the limit out of the
            `completion_mask`: they are read, and nothing is learned from them.
        image_keys: Entries of an observation that are the images of a turn, in order.
    """

    def __init__(
        self,
        mask_truncated: bool = False,
        image_keys: Sequence[str] = ("image",),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._mask_truncated, self._image_keys = mask_truncated, tuple(image_keys)

    def __call__(
        self, *, rl_module: Any, batch: Any, episodes: Sequence[Any], **kwargs: Any
    ) -> dict[str, Any]:
        """Return a batch of nothing but the rows."""
        rows: list[TokenRow] = []
        final: list[TokenRow] = []
        known: dict[int, HashedImage] = {}

        def hashed(pixels: np.ndarray) -> HashedImage:
            # Slots of one group show the same array at first: hash it once.
            image = known.get(id(pixels))
            if image is None or image.pixels is not pixels:
                image = known[id(pixels)] = HashedImage.of(pixels)
            return image

        for number, episode in enumerate(episodes):
            images = [hashed(p) for p in episode.custom_data.get(IMAGES_BEFORE, ())]
            turns = []
            for turn in range(len(episode)):
                shown = episode.get_observations(turn)
                images += [hashed(shown[key]) for key in self._image_keys]
                extra = {
                    name: episode.get_extra_model_outputs(name, turn)
                    for name in (PROMPT, TOKENS, LOG_PROBS, NUM_IMAGES)
                }
                turns.append(
                    TurnTokens(
                        np.asarray(extra[PROMPT]),
                        np.asarray(extra[TOKENS]),
                        np.asarray(extra[LOG_PROBS]),
                        tuple(images[len(images) - int(extra[NUM_IMAGES]) :]),
                    )
                )
            own = rows_of(turns, number)
            if self._mask_truncated:
                cut = [t for t in range(len(turns)) if episode.get_extra_model_outputs(CUT, t)]
                for row in own:
                    row.completion_mask &= ~np.isin(row.turns, cut)
            rows += own
            if FINAL_PROMPT in episode.custom_data:
                prompt, count = episode.custom_data[FINAL_PROMPT]
                shown = episode.get_observations(-1)
                images += [hashed(shown[key]) for key in self._image_keys]
                nothing = np.zeros(0)
                last = TurnTokens(prompt, nothing, nothing, tuple(images[len(images) - count :]))
                final += rows_of([last], number)
        return {DEFAULT_MODULE_ID: {ROWS: rows, FINAL_ROWS: final}}


class GroupAdvantages(ConnectorV2):
    """Advantages from the returns of other episodes.

    Args:
        settings: `advantage`, `scale_rewards`, `reward_weights`, `multi_objective_aggregation`, and
            `num_generations`, the episodes of a group.
        learners: Over whose episodes the iteration goes.

    Raises:
        LostGroups: A group of another size: it was cut on the way.
    """

    def __init__(self, settings: AdvantageSettings, learners: OverLearners, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._settings, self._learners = settings, learners

    def __call__(
        self,
        *,
        rl_module: Any,
        batch: dict[str, Any],
        episodes: Sequence[Any],
        metrics: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the batch with advantages in its rows."""
        settings, learners = self._settings, self._learners
        compare = _COMPARE[settings.advantage]
        groups = [episode.custom_data[GROUP] for episode in episodes]
        sizes, whole = Counter(groups), settings.num_generations
        cut = [group for group, count in sizes.items() if count != whole]
        if cut:
            raise LostGroups(
                f"group {cut[0]} has {sizes[cut[0]]} episodes where {whole} were played: it "
                "was cut between runner and learner"
            )
        if settings.multi_objective_aggregation == "normalize_then_sum":
            advantages, statistics = normalize_then_sum(
                [_terms(e) for e in episodes], settings.term_weights(), groups, compare, learners
            )
        else:
            rewards = _rewards(episodes, settings)
            advantages, statistics = compare(rewards, groups, settings.scale_rewards, learners)
        for row in batch[DEFAULT_MODULE_ID][ROWS]:
            row.set_advantages(advantages[row.episode])
        if metrics is not None:
            for name, value in vars(statistics).items():
                metrics.log_value((DEFAULT_MODULE_ID, name), value, window=1)
        return batch


class TurnGAE(ConnectorV2):
    """Advantages and value targets of turns, from the module's value head.

    Args:
        settings: `gae_lambda`, `reward_weights`, and `scale_rewards`: unless it is "none" the mean
            of all advantages is subtracted and they are divided by their spread.
        gamma: Discount.
        micro_batch: Rows computed at once.
        device: Of the module.
        learners: Over whose episodes the iteration goes.
    """

    def __init__(
        self,
        settings: AdvantageSettings,
        gamma: float,
        micro_batch: int,
        device: Any,
        learners: OverLearners,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._settings, self._gamma, self._learners = settings, gamma, learners
        self._micro_batch, self._device = micro_batch, device

    def __call__(
        self,
        *,
        rl_module: Any,
        batch: dict[str, Any],
        episodes: Sequence[Any],
        metrics: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the batch with advantages and value targets in its rows."""
        settings, rows = self._settings, batch[DEFAULT_MODULE_ID][ROWS]
        module = rl_module[DEFAULT_MODULE_ID].unwrapped()
        values: list[dict[int, float]] = [{} for _ in episodes]
        for row, by_turn in self._values(module, rows, rows[:1]):
            values[row.episode].update(by_turn)
        after = [0.0] * len(episodes)
        for row, by_turn in self._values(module, batch[DEFAULT_MODULE_ID][FINAL_ROWS], rows[:1]):
            (after[row.episode],) = by_turn.values()
        estimates = [[one[turn] for turn in sorted(one)] for one in values]
        advantages, targets = turn_gae(
            _rewards(episodes, settings), estimates, self._gamma, settings.gae_lambda, after
        )
        if metrics is not None:
            explained = self._explained(np.concatenate(targets), np.concatenate(estimates))
            metrics.log_value((DEFAULT_MODULE_ID, "explained_variance"), explained, window=1)
        if settings.scale_rewards != "none":
            mean, spread = self._learners.mean_and_std(np.concatenate(advantages))
            advantages = [((a - mean) / (spread + 1e-4)).astype(np.float32) for a in advantages]
        for row in rows:
            row.set_advantages(advantages[row.episode])
            row.values = {turn: float(targets[row.episode][turn]) for turn in row.prompt_ends}
        return batch

    def _explained(self, targets: np.ndarray, estimates: np.ndarray) -> float:
        """Share of the targets' variance that values explain, of episodes not learned from yet."""
        _, spread = self._learners.mean_and_std(targets)
        count, squares = self._learners.sum([len(targets), ((targets - estimates) ** 2).sum()])
        return 1 - squares / max(1.0, count) / max(spread**2, 1e-8)

    def _values(
        self, module: Any, rows: Sequence[TokenRow], filler: Sequence[TokenRow]
    ) -> Iterator[tuple[TokenRow, dict[int, float]]]:
        """Values of the turns of each row, by turn."""
        size = self._micro_batch
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        for micro_batch, counts in pad_to_all(parts, self._device, filler):
            tensors = collate(
                micro_batch,
                module.processor,
                module.base.config.image_token_id,
                module.shares_images,
                device=self._device,
            )
            with torch.no_grad():
                estimates = iter(module.compute_values(tensors).tolist())
            for row in micro_batch if counts else ():
                yield row, {turn: next(estimates) for turn in row.prompt_ends}


_COMPARE = {
    "group": group_advantages,
    "leave_one_out": leave_one_out,
    "batch": batch_advantages,
    "reward_to_go": reward_to_go,
}


def _rewards(episodes: Sequence[Any], settings: AdvantageSettings) -> list[list[float]]:
    """Reward of every turn: the environment's, or the weighted sum of its terms."""
    weights = settings.term_weights()
    if weights:
        return weighted_rewards([_terms(episode) for episode in episodes], weights)
    return [[float(reward) for reward in episode.get_rewards()] for episode in episodes]


def _terms(episode: Any) -> list[dict[str, float]]:
    return [episode.get_extra_model_outputs(TERMS, turn) for turn in range(len(episode))]


__all__ = [
    *(
        "CUT",
        "DICE",
        "FINAL_PROMPT",
        "FINAL_ROWS",
        "GROUP",
        "IMAGES_BEFORE",
        "LOG_PROBS",
        "NUM_IMAGES",
        "PROMPT",
        "ROWS",
    ),
    *("TERMS", "TOKENS", "GroupAdvantages", "TurnGAE", "TurnsToTokens"),
]
