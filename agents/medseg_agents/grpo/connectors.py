"""Learner connectors: episodes to rows of tokens, and the advantages of their turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core import DEFAULT_MODULE_ID

from medseg_agents.grpo.advantages import group_advantages, reward_to_go, turn_gae
from medseg_agents.grpo.errors import LostGroups
from medseg_agents.grpo.rollout.collate import collate
from medseg_agents.grpo.rollout.token_rows import HashedImage, TokenRow, TurnTokens, rows_of
from medseg_agents.grpo.sharding.agreement import pad_to_all

ROWS = "token_rows"
"""Column of the rows, a list of `TokenRow`."""

PROMPT, TOKENS, LOG_PROBS, NUM_IMAGES = "prompt", "tokens", "token_log_probs", "num_images"
"""Names of what a runner keeps of each turn among an episode's extra model outputs."""

GROUP = "group"
"""Entry of an episode's `custom_data` with the number of its group."""


class TurnsToTokens(ConnectorV2):
    """Turns of the episodes as rows of tokens."""

    def __call__(
        self, *, rl_module: Any, batch: Any, episodes: Sequence[Any], **kwargs: Any
    ) -> dict[str, Any]:
        """Return a batch of nothing but the rows."""
        rows: list[TokenRow] = []
        known: dict[int, HashedImage] = {}
        for number, episode in enumerate(episodes):
            images: list[HashedImage] = []
            turns = []
            for turn in range(len(episode)):
                pixels = episode.get_observations(turn)["image"]
                # Slots of one group show the same array at first: hash it once.
                image = known.get(id(pixels))
                if image is None or image.pixels is not pixels:
                    image = known[id(pixels)] = HashedImage.of(pixels)
                images.append(image)
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
            rows += rows_of(turns, number)
        return {DEFAULT_MODULE_ID: {ROWS: rows}}


class GroupAdvantages(ConnectorV2):
    """Advantages within groups.

    Args:
        kind: "group" or "reward_to_go", see `ChatSettings.advantage`.
        scale: See `ChatSettings.scale_rewards`.
        size: Episodes of a group.

    Raises:
        LostGroups: A group of another size: it was cut on the way.
    """

    def __init__(self, kind: str, scale: bool, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._kind, self._scale, self._size = kind, scale, size

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
        compare = reward_to_go if self._kind == "reward_to_go" else group_advantages
        groups = [episode.custom_data[GROUP] for episode in episodes]
        sizes = Counter(groups)
        cut = [group for group, count in sizes.items() if count != self._size]
        if cut:
            raise LostGroups(
                f"group {cut[0]} has {sizes[cut[0]]} episodes where {self._size} were played: it "
                "was cut between runner and learner"
            )
        advantages, statistics = compare([_rewards(e) for e in episodes], groups, self._scale)
        for row in batch[DEFAULT_MODULE_ID][ROWS]:
            row.set_advantages(advantages[row.episode])
        if metrics is not None:
            for name, value in vars(statistics).items():
                metrics.log_value((DEFAULT_MODULE_ID, name), value, window=1)
        return batch


class TurnGAE(ConnectorV2):
    """Advantages and value targets of turns, from the module's value head.

    Args:
        gamma: Discount.
        lam: Lambda.
        scale: Subtract the mean of all advantages and divide by their spread.
        micro_batch: Rows computed at once.
        device: Of the module.
    """

    def __init__(
        self, gamma: float, lam: float, scale: bool, micro_batch: int, device: Any, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._gamma, self._lam, self._scale = gamma, lam, scale
        self._micro_batch, self._device = micro_batch, device

    def __call__(
        self, *, rl_module: Any, batch: dict[str, Any], episodes: Sequence[Any], **kwargs: Any
    ) -> dict[str, Any]:
        """Return the batch with advantages and value targets in its rows."""
        module = rl_module[DEFAULT_MODULE_ID].unwrapped()
        rows: list[TokenRow] = batch[DEFAULT_MODULE_ID][ROWS]
        values: list[dict[int, float]] = [{} for _ in episodes]
        size = self._micro_batch
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        for micro_batch, _ in pad_to_all(parts, self._device):
            tensors = collate(
                micro_batch,
                module.processor,
                module.base.config.image_token_id,
                module.shares_images,
                device=self._device,
            )
            with torch.no_grad():
                estimates = iter(module.compute_values(tensors).tolist())
            for row in micro_batch:
                values[row.episode].update({turn: next(estimates) for turn in row.prompt_ends})
        by_turn = [[one[turn] for turn in sorted(one)] for one in values]
        advantages, targets = turn_gae(
            [_rewards(e) for e in episodes], by_turn, self._gamma, self._lam
        )
        if self._scale:
            flat = np.concatenate(advantages)
            advantages = [(a - flat.mean()) / (flat.std() + 1e-4) for a in advantages]
        for row in rows:
            row.set_advantages(advantages[row.episode])
            row.values = {turn: float(targets[row.episode][turn]) for turn in row.prompt_ends}
        return batch


def _rewards(episode: Any) -> list[float]:
    return [float(reward) for reward in episode.get_rewards()]


__all__ = [
    *("GROUP", "LOG_PROBS", "NUM_IMAGES", "PROMPT", "ROWS", "TOKENS"),
    *("GroupAdvantages", "TurnGAE", "TurnsToTokens"),
]
