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
from pathlib import Path
from typing import Any

from medseg_gym.cases import Case, VolumeCase
from medseg_gym.episodes.volumes import VolumeEpisode
from medseg_gym.errors import MedSegError, nearest
from medseg_gym.own_code import own_frames
from medseg_gym.play.catalog import Place
from medseg_gym.play.games import GameBook
from medseg_gym.play.policies.runner import PolicyRunner, WatchedEpisode
from medseg_gym.play.volumes.masks import nbytes, without_logits
from medseg_gym.serving.errors import ServiceError
from medseg_gym.trajectories import EpisodeKey, TrajectoryStore, TrajectoryWriter

log = logging.getLogger("medseg_gym.serving")

_MAX_HELD = 64  # episodes held for the page
_MAX_WAITING = 16  # episodes that may wait for the thread
_MAX_ENVS = 8  # environments kept for policies
_FOLDER = "policies"


class WatchedPolicies:
    """Policies that play cases and volumes for people to watch.

    Args:
        images: Games on images with the settings of the page.
        volumes: Games on volumes.
    """

    def __init__(self, images: GameBook[Any], volumes: GameBook[Any]) -> None:
        self.options, self.recordings = images.options, images.recordings
        self._books = {False: images, True: volumes}
        self.policies = {
            False: {policy.name: policy for policy in self.options.image_policies},
            True: {policy.name: policy for policy in self.options.volume_policies},
        }
        """Policies by whether they play volumes, and by name."""
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
        return self.options.record / _FOLDER

    def start(self, owner: str, name: str, place: Place, case: Case | VolumeCase) -> WatchedEpisode:
        """Begin to play a case with a policy, to be watched meanwhile.

        Raises:
            ServiceError: No such policy, a case whose truth is not known, or too many wait.
        """
        policies = self.policies[place.volumes]
        if name not in policies:
            sort = "volumes" if place.volumes else "images"
            raise ServiceError(
                f"there is no policy {name[:40]!r} of {sort} here{nearest(name, policies)}; "
                f"there are: {', '.join(policies) or 'none'}",
                404,
            )
        if not case.truth_known:
            raise ServiceError(
                "policies play where the truth is known: nobody knows that of your own image or "
                "scan, and environments refuse cases without one"
            )
        with self._lock:
            if self._waiting >= _MAX_WAITING:
                raise ServiceError("policies are busy; try again shortly", 503, retry_after=2)
            self._waiting += 1
        watched = WatchedEpisode(secrets.token_urlsafe(24), owner, name, case)
        self._shown[watched.id] = watched
        while len(self._shown) > _MAX_HELD:
            self._shown.popitem(last=False)
        self._thread.submit(self._play, watched, place)
        return watched

    def find(self, owner: str, id: str) -> WatchedEpisode | None:
        """Return an episode of an owner; None where there is none."""
        watched = self._shown.get(id)
        return watched if watched is not None and watched.owner == owner else None

    def get(self, owner: str, id: str) -> WatchedEpisode:
        """Return an episode of an owner.

        Raises:
            ServiceError: 404.
        """
        watched = self.find(owner, id)
        if watched is None:
            raise ServiceError("this episode is not held any more; let the policy play again", 404)
        return watched

    def _play(self, watched: WatchedEpisode, place: Place) -> None:
        began = time.perf_counter()
        key = watched.policy, place.name
        try:
            if self._stopping:
                raise ServiceError("the service is shutting down", 503)
            self._runner(key, place).play(watched)
        except MedSegError as error:
            log.warning("a policy stopped", exc_info=error, extra={"policy": watched.policy})
            watched.error = self.recordings.public_message(error)
        except Exception as error:
            log.exception("a policy failed", extra={"policy": watched.policy})
            watched.error = (
                f"the policy failed{_place_of(error)}; the service's log tells the cause"
            )
        finally:
            # A runner in an unknown state is not used again; nor are those of own scans, whose
            # place has the same name for everybody and whose volumes nobody else keeps.
            if watched.error or place.own:
                self._drop(key)
            if isinstance(watched.episode, VolumeEpisode):
                watched.episode = without_logits(watched.episode)
                self._make_room(watched)
            watched.done = True
            with self._lock:
                self._waiting -= 1
            seconds = round(time.perf_counter() - began, 3)
            log.info("policy played", extra={"policy": watched.policy, "seconds": seconds})

    def forget(self, case: Case | VolumeCase) -> None:
        """Give up the episodes on a scan that was removed."""
        for one in list(self._shown.values()):
            if one.case is case:
                self._shown.pop(one.id, None)

    def _make_room(self, newest: WatchedEpisode) -> None:
        """Give up the oldest episodes on volumes, where all take up too much memory together."""
        volumes = [
            (one, nbytes(one.episode))
            for one in list(self._shown.values())
            if isinstance(one.episode, VolumeEpisode)
        ]
        held = sum(size for _, size in volumes)
        for one, size in volumes:
            if held > self.options.volume_bytes and one is not newest and one.done:
                self._shown.pop(one.id, None)
                held -= size

    def _runner(self, key: tuple[str, str], place: Place) -> PolicyRunner:
        if key not in self._runners:
            if self._writer is None:
                self._writer = TrajectoryWriter(self.store)
                self._known = set(TrajectoryStore(self.store).keys())
            policy = self.policies[place.volumes][key[0]]
            book = self._books[place.volumes]
            self._runners[key] = PolicyRunner(policy, place, book, self._writer, self._known)
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


def _place_of(error: Exception) -> str:
    """Say in which line of the user's own code a policy failed, without the file's folder."""
    frames = own_frames(error)
    if not frames:
        return ""
    last = frames[-1]
    name = Path(last.filename).name
    return f" ({type(error).__name__} in {last.name}, line {last.lineno} of {name})"
