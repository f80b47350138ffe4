"""Policies beside people: they play the same cases through their own view, in a thread.

A policy's environment asks the service's segmenter as remote clients do, so its rows share decoder
calls with everybody's. What it plays is recorded once per case and settings.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medseg_gym.backbones.remote.ends import RemoteBackbone
from medseg_gym.backbones.remote.wire import WireRow
from medseg_gym.cases import Case
from medseg_gym.episodes import Episode
from medseg_gym.errors import MedSegError, PolicyError
from medseg_gym.play.describe import describe_steps
from medseg_gym.play.games import GameBook
from medseg_gym.play.options import PagePolicy
from medseg_gym.play.shelf import Place
from medseg_gym.policy import Policy, close_policy, make_envs, play_cases
from medseg_gym.serving.batching.segmenter import Segmenter
from medseg_gym.serving.errors import ServiceError
from medseg_gym.trajectories import EpisodeKey, TrajectoryStore, TrajectoryWriter, VectorRecorder
from medseg_gym.trajectories.recording.provenance import option_facts

log = logging.getLogger("medseg_gym.serving")

_KEPT = 64  # showings held for the page
_WAITING = 16  # showings that may wait for the thread
_STAGES = 8  # environments kept for policies
_FOLDER = "policies"


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
class Showing:
    """A policy's episode as the page watches it.

    Args:
        id: Unguessable.
        owner: Who alone can watch.
        policy: Name of the policy.
        case: What it plays.
        episode: None until it has begun.
        rewards: One per step.
        sees_truth: Known when the policy is built.
        done: It is over, or failed.
        error: Why it failed.
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
        """The showing as JSON; steps that the page has already are left out.

        Args:
            since: Steps that it has.
            scored: Tell scores.
        """
        scored = scored and self.case.truth_known
        found: dict[str, Any] = {
            "watch": self.id,
            "policy": self.policy,
            "oracle": self.sees_truth,
            "done": self.done,
            "error": self.error,
            "steps": [],
        }
        if self.episode is not None:
            found["max_steps"] = self.episode.max_steps
            found["steps"] = describe_steps(self.episode, self.rewards, scored, since)
            if scored:
                found["start_dice"] = self.episode.start_dice
        return found


class _Shown(VectorRecorder):
    """Tells a showing of every step."""

    showing: Showing | None = None

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take one action and show it."""
        stepped = super().step(actions)
        if self.showing is not None:
            self.showing.episode = self.core.engine.episode(0)
            self.showing.rewards.append(float(stepped[1][0]))
        return stepped


class _Set:
    """A policy with its environment on the cases of one place."""

    def __init__(
        self,
        policy: PagePolicy,
        place: Place,
        games: GameBook,
        writer: TrajectoryWriter,
        known: set,
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
        self.envs = _Shown(envs, writer, policy=self.policy, key_of=self._key_of)
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

    def play(self, showing: Showing) -> None:
        """Play a case once.

        Raises:
            PolicyError: The policy needs a truth that nobody knows, or gave the case up.
        """
        showing.sees_truth = self.policy.sees_truth
        if self.policy.sees_truth and not showing.case.truth_known:
            raise PolicyError(f"policy {self.policy.name!r} needs a truth, and nobody knows one")
        self.envs.showing = showing
        before = set(self._recorded)
        try:
            for _ in play_cases(self.envs, self.policy, [showing.case.key]):  # type: ignore[arg-type]
                pass
        except BaseException:  # what broke off is recorded once it is played to its end
            self._recorded.intersection_update(before)
            raise
        finally:
            self.envs.showing = None

    def close(self) -> None:
        """Let go of the policy's connections."""
        close_policy(self.policy)
        self.envs.close()


def _seed_of(policy: str, place: Place, games: GameBook) -> int:
    """The same number for the same policy, cases and settings: they are recorded once."""
    facts = [policy, place.spec or place.source.name, place.split, games.max_steps]
    facts += [games.options.reward, games.book.segmenter.facts.fingerprint]
    digest = hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 2


class Gallery:
    """Lets policies play for people to watch.

    Args:
        games: Whose settings they play under.
    """

    def __init__(self, games: GameBook) -> None:
        self.games = games
        self.players = {f"p{i}": policy for i, policy in enumerate(games.options.players)}
        self._thread = ThreadPoolExecutor(1, "policies")
        self._sets: OrderedDict[tuple[str, str], _Set] = OrderedDict()
        self._shown: OrderedDict[str, Showing] = OrderedDict()
        self._lock = threading.Lock()
        self._waiting = 0
        self._stopping = False
        self._writer: TrajectoryWriter | None = None
        self._known: set[EpisodeKey] = set()

    @property
    def store(self) -> Any:
        """Folder of the policies' store."""
        return self.games.options.record / _FOLDER

    def start(self, owner: str, player: str, place: Place, case: Case) -> Showing:
        """Have a policy play a case; it is watched while it plays.

        Raises:
            ServiceError: No such policy, an image without a place among cases, or too many wait.
        """
        policy = self.players.get(player)
        if policy is None:
            raise ServiceError(f"there is no policy {player[:40]!r} here", 404)
        if not case.truth_known:
            raise ServiceError(
                "policies play cases of the suite alone: nobody knows the truth of your own image, "
                "and environments refuse cases without one"
            )
        with self._lock:
            if self._waiting >= _WAITING:
                raise ServiceError("policies are busy; try again shortly", 503, retry_after=2)
            self._waiting += 1
        showing = Showing(secrets.token_urlsafe(24), owner, policy.name, case)
        self._shown[showing.id] = showing
        while len(self._shown) > _KEPT:
            self._shown.popitem(last=False)
        self._thread.submit(self._play, showing, player, place)
        return showing

    def get(self, owner: str, id: str) -> Showing:
        """A showing of the owner's.

        Raises:
            ServiceError: 404.
        """
        found = self._shown.get(id)
        if found is None or found.owner != owner:
            raise ServiceError("this episode is not held any more; let the policy play again", 404)
        return found

    def _play(self, showing: Showing, player: str, place: Place) -> None:
        began = time.perf_counter()
        try:
            if self._stopping:
                raise ServiceError("the service is shutting down", 503)
            self._set(player, place).play(showing)
        except MedSegError as error:
            log.warning("a policy stopped", exc_info=error, extra={"policy": showing.policy})
            showing.error = self.games.recordings.words(error)
        except Exception:
            log.exception("a policy failed", extra={"policy": showing.policy})
            showing.error = "the policy failed; the service's log tells the cause"
        finally:
            if showing.error:  # a set in an unknown state is not used again
                self._drop((player, place.name))
            showing.done = True
            with self._lock:
                self._waiting -= 1
            seconds = round(time.perf_counter() - began, 3)
            log.info("policy played", extra={"policy": showing.policy, "seconds": seconds})

    def _set(self, player: str, place: Place) -> _Set:
        key = player, place.name
        if key not in self._sets:
            if self._writer is None:
                self._writer = TrajectoryWriter(self.store)
                self._known = set(TrajectoryStore(self.store).keys())
            made = _Set(self.players[player], place, self.games, self._writer, self._known)
            self._sets[key] = made
            while len(self._sets) > _STAGES:
                self._drop(next(iter(self._sets)))
        self._sets.move_to_end(key)
        return self._sets[key]

    def _drop(self, key: tuple[str, str]) -> None:
        found = self._sets.pop(key, None)
        if found is not None:
            found.close()

    def close(self) -> None:
        """Finish the episode that is played; the others are given up."""
        self._stopping = True

        def end() -> None:
            for key in list(self._sets):
                self._drop(key)
            if self._writer is not None:
                self._writer.close()

        self._thread.submit(end).result()
        self._thread.shutdown()
