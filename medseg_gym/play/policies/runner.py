"""A policy with its environment, which plays one case at a time while people watch.

The environment uses the service's segmenter as remote clients do, so its rows share decoder calls
with those of all clients.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from medseg_gym.backbones.cache import embedding_cache
from medseg_gym.cases import Case, VolumeCase
from medseg_gym.envs.options import EnvOptions
from medseg_gym.envs.volumes.options import VolumeOptions
from medseg_gym.episodes import Episode
from medseg_gym.episodes.volumes import VolumeEpisode
from medseg_gym.errors import PolicyError
from medseg_gym.play.catalog import Place
from medseg_gym.play.describe import describe_steps
from medseg_gym.play.games import GameBook
from medseg_gym.play.options import PagePolicy
from medseg_gym.play.volumes.describe import describe_volume_steps
from medseg_gym.play.volumes.games import PIXEL_BYTES
from medseg_gym.policy import Policy, close_policy, make_envs, play_cases
from medseg_gym.serving.batching.shared_segmenter import SharedSegmenter
from medseg_gym.trajectories import EpisodeKey, TrajectoryWriter, VectorRecorder
from medseg_gym.trajectories.recording.provenance import option_facts


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
    case: Case | VolumeCase
    episode: Episode | VolumeEpisode | None = None
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
        episode = self.episode
        if episode is not None:
            description["max_steps"] = episode.max_steps
            if isinstance(episode, VolumeEpisode):
                steps = describe_volume_steps(episode, self.rewards, scored, since)
            else:
                steps = describe_steps(episode, self.rewards, scored, since)
            description["steps"] = steps
            if scored:
                description["start_dice"] = episode.start_dice
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
    """A policy with its environment on the cases of one place.

    Args:
        policy: To be built.
        place: Of the cases; on an owner's own nothing is recorded.
        games: Games with the same settings.
        writer: Of the policies' store.
        known: Keys of what is in the store.
    """

    def __init__(
        self,
        policy: PagePolicy,
        place: Place,
        games: GameBook[Any],
        writer: TrajectoryWriter,
        known: set[EpisodeKey],
    ) -> None:
        options = games.env_options(place)
        backbone = SharedSegmenter(games.segmenter)
        # A policy knows its tools; where it does not, it gets those that the backbone can answer.
        view = {"tools": games.policy_tools, **policy.view}
        envs = make_envs(1, policy.env_id, **_arguments(options), backbone=backbone, **view)
        if isinstance(options, VolumeOptions):
            embedding_cache(backbone).max_bytes = PIXEL_BYTES
        self._own = place.own
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

    def _key_of(self, episode: Episode | VolumeEpisode) -> EpisodeKey | None:
        if self._own:
            return None
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


def _arguments(options: EnvOptions) -> dict[str, Any]:
    """Return the arguments of an environment, but for its backbone and its view."""
    names = ["cases", "split", "reward", "max_steps", "mask_input", "multimask", "text_prompt"]
    arguments = {name: getattr(options, name) for name in names}
    if isinstance(options, VolumeOptions):
        # Embeddings are the service's; there is nothing here to spill.
        return arguments | {"propagation": options.propagation, "spill_bytes": 0}
    return arguments | {"prompt_memory": options.prompt_memory}


def _seed_of(policy: str, place: Place, games: GameBook[Any]) -> int:
    """Return the same number for the same policy, cases and settings, recorded once."""
    facts = [policy, place.spec or place.source.name, place.split, games.max_steps]
    facts += [games.options.reward, games.segmenter.facts.fingerprint]
    digest = hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 2
