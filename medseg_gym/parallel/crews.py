"""Crews without Ray: this process alone, and processes of this machine."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable
from multiprocessing.connection import Connection, wait
from typing import Any

from medseg_gym.parallel.compute import torch_threads
from medseg_gym.parallel.options import WorkerOptions
from medseg_gym.parallel.sharing import Crew, Event
from medseg_gym.parallel.worker import Make, Player, Worker


def make_crew(
    make: Make, options: WorkerOptions, jobs: int, device: str = "auto", texts: Iterable[str] = ()
) -> Crew:
    """Return the crew that options ask for; it starts nothing yet, but Ray.

    Args:
        make: Makes a worker's player; it is pickled unless this process plays alone.
        options: How many workers, and where.
        jobs: Of the work; no more workers than that are started.
        device: Of the segmenter, for actors that may need a GPU.
        texts: Specs, for the user's own files and modules in them: actors get copies of their
            sources.

    Raises:
        MedSegError: There is no such cluster, or no room for an actor in it.
    """
    if options.ray is not None:
        from medseg_gym.parallel.ray_actors import RayActors

        return RayActors(make, options, jobs, device, texts)
    count = min(options.workers or 1, max(jobs, 1))
    return Alone(make, options.threads) if count == 1 else Processes(make, count, options.threads)


class Alone:
    """This process; its exceptions are not caught.

    Args:
        make: Of the player.
        threads: Of torch.
    """

    size = 1

    def __init__(self, make: Make, threads: int) -> None:
        self._make, self._threads = make, threads
        self._player: Player | None = None
        self._jobs: list[Any] = []

    def start(self, number: int) -> None:
        """Make the player."""
        self._player = self._make(number)

    def send(self, number: int, job: Any) -> None:
        """Keep a job for `wait`."""
        self._jobs.append(job)

    def wait(self) -> list[Event]:
        """Play the job that was sent."""
        assert self._player is not None
        if not self._jobs:
            return [Event(0, "ready")]
        with torch_threads(self._threads):
            result = self._player.play(self._jobs.pop())
        return [Event(0, "result", result, dict(self._player.usage))]

    def stop(self) -> None:
        """Close the player."""
        if self._player is not None:
            self._player.close()


class Processes:
    """Processes of this machine, each at the end of a pipe.

    Args:
        make: Of the players.
        size: How many.
        threads: Of torch, in each.
    """

    def __init__(self, make: Make, size: int, threads: int) -> None:
        self.size = size
        self._make, self._threads = make, threads
        self._context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
        self._processes: dict[int, Any] = {}
        self._pipes: dict[int, Connection] = {}

    def start(self, number: int) -> None:
        """Start a process."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(self._make, number, self._threads, theirs), daemon=True
        )
        self._pipes[number], self._processes[number] = ours, process
        process.start()
        theirs.close()

    def send(self, number: int, job: Any) -> None:
        """Send a job; that a process has died is noticed by `wait`."""
        try:
            self._pipes[number].send(job)
        except ConnectionError:
            pass

    def wait(self) -> list[Event]:
        """Wait for answers and deaths."""
        numbers = {pipe: number for number, pipe in self._pipes.items()}
        events = []
        for pipe in wait(list(numbers)):
            assert isinstance(pipe, Connection)
            number = numbers[pipe]
            try:
                events.append(Event(number, *pipe.recv()))
            except (EOFError, ConnectionError):
                process = self._processes[number]
                process.join()
                self._pipes.pop(number).close()
                events.append(Event(number, "died", f"exit code {process.exitcode}"))
        return events

    def stop(self) -> None:
        """End the processes."""
        for process in self._processes.values():
            process.terminate()
            process.join()
        for pipe in self._pipes.values():
            pipe.close()


def _work(make: Make, number: int, threads: int, connection: Connection) -> None:
    """The main function of a worker: says "ready", is sent jobs, gives results back."""
    worker = Worker(make, number, threads)
    try:
        connection.send(("ready",))
        while True:
            connection.send(worker.play(connection.recv()))
    except (BrokenPipeError, ConnectionError, EOFError):
        pass  # the parent is gone, and whatever it wrote is safe
    finally:
        worker.close()
        connection.close()
