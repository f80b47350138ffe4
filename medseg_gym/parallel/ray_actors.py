"""A crew of Ray actors, over as many hosts as the cluster has."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ray

from medseg_gym.errors import MedSegError
from medseg_gym.parallel.options import WorkerOptions
from medseg_gym.parallel.own_sources import OwnSources, read_sources, use_sources
from medseg_gym.parallel.ray_address import check_address
from medseg_gym.parallel.sharing import Event
from medseg_gym.parallel.worker import Answer, Make, Worker

START_LIMIT = 600
"""Seconds to wait for a first actor when none plays; a cluster may have to start a host for it."""


_CLOSING = 5
"""Seconds that idle actors are given to let go of connections and files."""


class RayActors:
    """Actors, each with a player of its own, spread over the hosts of a cluster.

    Ray restarts nothing by itself: an actor that dies, with its host or alone, is told of as an
    event, and another takes its place wherever there is room.

    Args:
        make: Of the players; pickled.
        options: The cluster, and what an actor asks of it.
        jobs: No more actors than that are started.
        device: Of the segmenter; "cpu" asks for no GPU.
        texts: Specs that may name files and modules of the user's own.

    Raises:
        MedSegError: There is no such cluster, or no host in it has room for an actor.
    """

    def __init__(
        self, make: Make, options: WorkerOptions, jobs: int, device: str, texts: Iterable[str]
    ) -> None:
        assert options.ray is not None
        self._started_ray = _connect(options.ray)
        self._actors: dict[int, Any] = {}
        self._pending: dict[Any, tuple[int, str]] = {}
        try:
            asked = _asked(options, device)
            room = _room(asked)
            if not room and options.workers is None:
                raise MedSegError(
                    f"no host of the Ray cluster has room for an actor of {_words(asked)} ("
                    f"{_hosts()}); give --cpus-per-actor, --gpus-per-actor or --threads, or "
                    "--workers to wait for hosts that are still to join"
                )
            self.size = min(options.workers or room, max(jobs, 1))
            self._asked = asked
            sources = read_sources(texts)
            self._arguments = (make, options.threads, os.getcwd(), ray.put(sources))
            self._class: Any = ray.remote(CaseActor).options(
                num_cpus=asked["CPU"],
                num_gpus=asked["GPU"],
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy="SPREAD",
            )
        except BaseException:
            self.stop()
            raise

    def start(self, number: int) -> None:
        """Ask for an actor."""
        actor = self._class.remote(*self._arguments)
        self._actors[number] = actor
        self._pending[actor.ready.remote()] = number, "ready"

    def send(self, number: int, job: Any) -> None:
        """Send a job; that the actor has died is noticed by `wait`."""
        self._pending[self._actors[number].play.remote(job)] = number, "result"

    def wait(self) -> list[Event]:
        """Wait for answers and deaths.

        Raises:
            MedSegError: No actor could start for `START_LIMIT` seconds, and none plays.
        """
        starting = all(kind == "ready" for _, kind in self._pending.values())
        done, _ = ray.wait(list(self._pending), timeout=START_LIMIT if starting else None)
        if not done:
            raise MedSegError(
                f"no actor of {_words(self._asked)} could start within {START_LIMIT} s ("
                f"{_hosts()}); other programs may hold what is there. What was played is kept"
            )
        return [self._event(ref) for ref in done]

    def stop(self) -> None:
        """End the actors, and Ray where it was started for them."""
        if ray.is_initialized():
            busy = {number for number, _ in self._pending.values()}
            ending = [a.close.remote() for n, a in self._actors.items() if n not in busy]
            if ending:
                ray.wait(ending, num_returns=len(ending), timeout=_CLOSING)
            for actor in self._actors.values():
                ray.kill(actor)
        self._actors.clear()
        self._pending.clear()
        if self._started_ray:
            ray.shutdown()

    def _event(self, ref: Any) -> Event:
        number, kind = self._pending.pop(ref)
        try:
            answer: Answer = ray.get(ref)
        except ray.exceptions.RayTaskError as error:  # not of a player: of the installation
            words = str(error.cause or error).strip().splitlines()[-1]
            return Event(number, "error", MedSegError(f"an actor cannot start: {words}"))
        except ray.exceptions.RayError as error:  # it died, with its host or alone
            ray.kill(self._actors[number])  # should it be out of reach alone
            return Event(number, "died", _reason(error))
        return Event(number, "ready") if kind == "ready" else Event(number, *answer)


class CaseActor:
    """A worker in a process of Ray's."""

    def __init__(self, make: Make, threads: int, folder: str, sources: OwnSources) -> None:
        self._copies = use_sources(sources, Path(folder))
        self._worker = Worker(make, 0, threads)  # Ray shows each actor the GPUs it may use

    def ready(self) -> None:
        """Return once the actor has started."""

    def play(self, job: Any) -> Answer:
        """Play a job."""
        return self._worker.play(job)

    def close(self) -> None:
        """Let go of connections, and of copies of sources."""
        self._worker.close()
        for copy in self._copies:
            copy.cleanup()


def _connect(address: str) -> bool:
    """Join a cluster, or start one; returns whether this process was part of none before."""
    if ray.is_initialized():
        return False
    check_address(address, "--ray")
    try:
        local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, ValueError, RuntimeError) as error:
        words = str(error).strip().splitlines()[0]
        raise MedSegError(
            f"--ray {address}: no Ray cluster could be joined: {words}; start one with `ray start "
            "--head`, give its address (HOST:6379), or local for one on this machine"
        ) from error
    return True


def _asked(options: WorkerOptions, device: str) -> dict[str, float]:
    """Return what an actor asks for."""
    cpus = options.threads if options.cpus_per_actor is None else options.cpus_per_actor
    gpus = options.gpus_per_actor
    if gpus is None:
        gpus = float(device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0)
    return {"CPU": cpus, "GPU": gpus}


def _room(asked: dict[str, float]) -> int:
    """Return for how many actors all hosts have room, were nothing else running."""
    wanted = {kind: count for kind, count in asked.items() if count}
    if not wanted:
        raise MedSegError("actors that ask for no CPU and no GPU need their number: give --workers")
    return sum(
        min(int(node["Resources"].get(kind, 0) / count + 1e-9) for kind, count in wanted.items())
        for node in ray.nodes()
        if node["Alive"]
    )


def _hosts() -> str:
    alive = [node for node in ray.nodes() if node["Alive"]]
    has = [{kind: node["Resources"].get(kind, 0) for kind in _KINDS} for node in alive[:8]]
    shown = [
        f"{node['NodeManagerAddress']} has {_words(resources)}"
        for node, resources in zip(alive, has, strict=False)
    ]
    return "; ".join([*shown, *(["..."] if len(alive) > 8 else [])])


_KINDS = ("CPU", "GPU")


def _words(resources: dict[str, float]) -> str:
    return " and ".join(f"{count:g} {kind}" for kind, count in resources.items())


def _reason(error: Exception) -> str:
    """Return the reason of an actor's death, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "died" in line.lower() or "killed" in line.lower()]
    return f"{type(error).__name__}: {(telling or lines or [''])[-1]}"[:300]
