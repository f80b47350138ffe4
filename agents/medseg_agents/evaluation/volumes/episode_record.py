"""VolumeEpisodeRecord: the numbers of a whole volume that a policy played."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from medseg_agents.evaluation.case_record import PROMPT_TOOLS, EpisodeRecord, facts_of
from medseg_agents.evaluation.volumes.packed_masks import pack_volume
from medseg_gym.envs.vector import CoreVectorEnv
from medseg_gym.policy import Played, Policy
from medseg_gym.prompts.volumes import encode_volume_call


@dataclass(frozen=True, kw_only=True)
class VolumeEpisodeRecord(EpisodeRecord):
    """Record of one policy in one episode of `MedSegVolume-v0` or its chat form.

    Args:
        shape: Slices, rows and columns.
        unnamed: Slices that no action of the view can name.
    """

    shape: tuple[int, int, int]
    unnamed: int = 0

    @property
    def prompts_by_step(self) -> tuple[int, ...]:
        """Boxes and clicks before the first step and after each, as `dice` has it."""
        placed = np.cumsum([0, *(tool in PROMPT_TOOLS for tool in self.tools)])
        return tuple(placed.tolist())


def record_of_volume(
    played: Played, policy: Policy, envs: CoreVectorEnv, batch_size: int
) -> VolumeEpisodeRecord:
    """Return the record of a finished episode, its final mask among it.

    Args:
        played: The episode, a `VolumeEpisode`.
        policy: Who played.
        envs: Where.
        batch_size: Volumes in its batch.
    """
    episode: Any = played.episode
    case = episode.case
    return VolumeEpisodeRecord(
        **facts_of(played, policy, envs, batch_size),
        calls=tuple(encode_volume_call(s.prompt) if s.prompt else "" for s in episode.steps),
        mask=pack_volume(episode.mask()),
        shape=case.mask.shape,
        unnamed=case.depth - _named(envs, case.depth),
    )


def _named(envs: Any, depth: int) -> int:
    """Slices of a volume that an action can name; a conversation names any."""
    codec = getattr(envs.view, "codec", None)
    if codec is None or not hasattr(codec, "slice_of"):
        return depth
    return len({codec.slice_of(cell, depth) for cell in range(codec.slices)})
