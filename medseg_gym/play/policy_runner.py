"""A policy with its environment, which plays one case at a time while people watch.

The environment uses the service's segmenter as remote clients do, so its rows share decoder calls
with those of all clients.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medseg_gym.backbones.remote.ends import RemoteBackbone
from medseg_gym.backbones.remote.wire import WireRow
from medseg_gym.cases import Case
from medseg_gym.episodes import Episode
from medseg_gym.errors import PolicyError
from medseg_gym.play.catalog import Place
from medseg_gym.play.describe import describe_steps
from medseg_gym.play.games import GameBook
from medseg_gym.play.options import PagePolicy
from medseg_gym.policy import Policy, close_policy, make_envs, play_cases
from medseg_gym.serving.batching.segmenter import Segmenter
from medseg_gym.trajectories import EpisodeKey, TrajectoryWriter, VectorRecorder
from medseg_gym.trajectories.recording.provenance import option_facts


class SharedSegmenter(RemoteBackbone):
    """The service's segmenter as the backbone of an environment in this process."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__(segmenter.facts)
        self._segmenter = segmenter

    def _encode(self, images: Mapping[str, np.ndarray]) -> Mapping[str, tuple[int, int]]:
        return self._segmenter.encode_now(images)

    def _decode(
        self, rows: Sequence[WireRow], images: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        return self._segmenter.decode_now(rows, images)


@dataclass(eq=False)
class WatchedEpisode:
    """A policy's episode as the page shows it.

    Args:
        id: Unguessable.
        owner: The only one who can watch.
        policy: Name of the policy.
        case: The case that it plays.
        episode: None until it has begun.
        rewards: One per step.
        sees_truth: Known when the policy is built.
        done: True once it is over or has failed.
        error: Reason of the failure.
    """

    id: str
    owner: str
    policy: str
    case: Case
    episode: Episode | None = None
    rewards: list[float] = field(default_factory=list)
    sees_truth: bool | None = None
    done: bool = False
    error: str = ""

    def describe(self, since: int = 0, scored: bool = True) -> dict[str, Any]:
        """Describe the episode as JSON.

        Args:
            since: Number of steps to leave out at the beginning.
            scored: Include scores.
        """
        scored = scored and self.case.truth_known
        description: dict[str, Any] = {
            "watch": self.id,
            "policy": self.policy,
            "oracle": self.sees_truth,
            "done": self.done,
            "error": self.error,
            "steps": [],
        }
        if self.episode is not None:
            description["max_steps"] = self.episode.max_steps
            description["steps"] = describe_steps(self.episode, self.rewards, scored, since)
            if scored:
                description["start_dice"] = self.episode.start_dice
        return description


class _ShowingRecorder(VectorRecorder):
    """Recorder that also shows every step."""

    watched: WatchedEpisode | None = None

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take one action and show it."""
        stepped = super().step(actions)
        if self.watched is not None:
            self.watched.episode = self.core.engine.episode(0)
            self.watched.rewards.append(float(stepped[1][0]))
        return stepped


class PolicyRunner:
    """A policy with its environment on the cases of one place."""

    def __init__(
        self,
        policy: PagePolicy,
        place: Place,
        games: GameBook,
        writer: TrajectoryWriter,
        known: set[EpisodeKey],
    ) -> None:
        options = games.env_options(place)
        # A policy knows its tools; where it does not, it gets those that the backbone can answer.
        view = {"tools": games.tools, **policy.view}
        envs = make_envs(
            1,
            policy.env_id,
            cases=options.cases,
            split=options.split,
            backbone=SharedSegmenter(games.book.segmenter),
            reward=options.reward,
            max_steps=options.max_steps,
            prompt_memory=options.prompt_memory,
            mask_input=options.mask_input,
            multimask=options.multimask,
            text_prompt=options.text_prompt,
            **view,
        )
        self.policy: Policy = policy.build(envs)
        self._recorded = known
        self.seed = _seed_of(self.policy.name, place, games)
        self.envs = _ShowingRecorder(envs, writer, policy=self.policy, key_of=self._key_of)
        self.envs.log.facts = option_facts(
            options,
            place.source.name,
            envs.backbone,
            envs.view.settings,
            self.policy.name,
            self.policy.sees_truth,
        )

    def _key_of(self, episode: Episode) -> EpisodeKey | None:
        key = EpisodeKey(episode.case.key, self.seed, 0)
        if key in self._recorded:
            return None
        self._recorded.add(key)
        return key

    def play(self, watched: WatchedEpisode) -> None:
        """Play a case once.

        Raises:
            PolicyError: The policy needs a ground truth that is not known, or gave the case up.
        """
        watched.sees_truth = self.policy.sees_truth
        if self.policy.sees_truth and not watched.case.truth_known:
            raise PolicyError(f"policy {self.policy.name!r} needs a truth, and nobody knows one")
        self.envs.watched = watched
        before = set(self._recorded)
        try:
            for _ in play_cases(self.envs, self.policy, [watched.case.key]):  # type: ignore[arg-type]
                pass
        except BaseException:  # what broke off is recorded once it is played to its end
            self._recorded.intersection_update(before)
            raise
        finally:
            self.envs.watched = None

    def close(self) -> None:
        """Close the policy's connections and its environment."""
        close_policy(self.policy)
        self.envs.close()


def _seed_of(policy: str, place: Place, games: GameBook) -> int:
    """Return the same number for the same policy, cases and settings, recorded once."""
    facts = [policy, place.spec or place.source.name, place.split, games.max_steps]
    facts += [games.options.reward, games.book.segmenter.facts.fingerprint]
    digest = hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 2
