"""Policies that people watch: they play the same cases through their own view, in a thread.

A policy's environment uses the service's segmenter as remote clients do, so its rows share decoder
calls with those of all clients. Its episodes are recorded once per case and settings.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from medseg_gym.cases import Case
from medseg_gym.errors import MedSegError
from medseg_gym.play.catalog import Place
from medseg_gym.play.games import GameBook
from medseg_gym.play.policy_runner import PolicyRunner, WatchedEpisode
from medseg_gym.serving.errors import ServiceError
from medseg_gym.trajectories import EpisodeKey, TrajectoryStore, TrajectoryWriter

log = logging.getLogger("medseg_gym.serving")

_MAX_HELD = 64  # episodes held for the page
_MAX_WAITING = 16  # episodes that may wait for the thread
_MAX_ENVS = 8  # environments kept for policies
_FOLDER = "policies"


class WatchedPolicies:
    """Policies that play cases for people to watch.

    Args:
        games: Games with the settings of the page.
    """

    def __init__(self, games: GameBook) -> None:
        self.games = games
        self.policies = {f"p{i}": policy for i, policy in enumerate(games.options.watchable)}
        self._thread = ThreadPoolExecutor(1, "policies")
        self._runners: OrderedDict[tuple[str, str], PolicyRunner] = OrderedDict()
        self._shown: OrderedDict[str, WatchedEpisode] = OrderedDict()
        self._lock = threading.Lock()
        self._waiting = 0
        self._stopping = False
        self._writer: TrajectoryWriter | None = None
        self._known: set[EpisodeKey] = set()

    @property
    def store(self) -> Any:
        """Folder of the policies' store."""
        return self.games.options.record / _FOLDER

    def start(self, owner: str, policy_id: str, place: Place, case: Case) -> WatchedEpisode:
        """Begin to play a case with a policy, to be watched meanwhile.

        Raises:
            ServiceError: No such policy, an image without a place among cases, or too many wait.
        """
        policy = self.policies.get(policy_id)
        if policy is None:
            raise ServiceError(f"there is no policy {policy_id[:40]!r} here", 404)
        if not case.truth_known:
            raise ServiceError(
                "policies play cases of the suite alone: nobody knows the truth of your own image, "
                "and environments refuse cases without one"
            )
        with self._lock:
            if self._waiting >= _MAX_WAITING:
                raise ServiceError("policies are busy; try again shortly", 503, retry_after=2)
            self._waiting += 1
        watched = WatchedEpisode(secrets.token_urlsafe(24), owner, policy.name, case)
        self._shown[watched.id] = watched
        while len(self._shown) > _MAX_HELD:
            self._shown.popitem(last=False)
        self._thread.submit(self._play, watched, policy_id, place)
        return watched

    def get(self, owner: str, id: str) -> WatchedEpisode:
        """Return an episode of an owner.

        Raises:
            ServiceError: 404.
        """
        watched = self._shown.get(id)
        if watched is None or watched.owner != owner:
            raise ServiceError("this episode is not held any more; let the policy play again", 404)
        return watched

    def _play(self, watched: WatchedEpisode, player: str, place: Place) -> None:
        began = time.perf_counter()
        try:
            if self._stopping:
                raise ServiceError("the service is shutting down", 503)
            self._runner(player, place).play(watched)
        except MedSegError as error:
            log.warning("a policy stopped", exc_info=error, extra={"policy": watched.policy})
            watched.error = self.games.recordings.public_message(error)
        except Exception:
            log.exception("a policy failed", extra={"policy": watched.policy})
            watched.error = "the policy failed; the service's log tells the cause"
        finally:
            if watched.error:  # a runner in an unknown state is not used again
                self._drop((player, place.name))
            watched.done = True
            with self._lock:
                self._waiting -= 1
            seconds = round(time.perf_counter() - began, 3)
            log.info("policy played", extra={"policy": watched.policy, "seconds": seconds})

    def _runner(self, player: str, place: Place) -> PolicyRunner:
        key = player, place.name
        if key not in self._runners:
            if self._writer is None:
                self._writer = TrajectoryWriter(self.store)
                self._known = set(TrajectoryStore(self.store).keys())
            runner = PolicyRunner(
                self.policies[player], place, self.games, self._writer, self._known
            )
            self._runners[key] = runner
            while len(self._runners) > _MAX_ENVS:
                self._drop(next(iter(self._runners)))
        self._runners.move_to_end(key)
        return self._runners[key]

    def _drop(self, key: tuple[str, str]) -> None:
        runner = self._runners.pop(key, None)
        if runner is not None:
            runner.close()

    def close(self) -> None:
        """Finish the running episode and give up those that wait."""
        self._stopping = True

        def end() -> None:
            for key in list(self._runners):
                self._drop(key)
            if self._writer is not None:
                self._writer.close()

        self._thread.submit(end).result()
        self._thread.shutdown()
