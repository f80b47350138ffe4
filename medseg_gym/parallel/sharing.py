"""The one loop that shares jobs out: bounded, with the jobs of workers that died dealt again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from medseg_gym.errors import MedSegError
from medseg_gym.parallel.worker import add_usage

J = TypeVar("J")

TRIES = 3
"""Workers that may die over a job before its cases are played one by one."""

TRIES_ALONE = 2
"""Workers that may die over a single case of such a job before it is given up."""


FAILED_STARTS = 10
"""Workers in a row that may die before they are ready."""


class Work(Protocol[J]):
    """Jobs, and what becomes of them; the program that shares out calls it, one call at a time."""

    def next(self) -> J | None:
        """Return the next job; None where there is none, or none before a result has come in."""
        ...

    def take(self, job: J, result: Any) -> None:
        """Keep the result of a job."""
        ...

    def split(self, job: J) -> Sequence[J]:
        """Return jobs of a single case each; the job itself where it is one."""
        ...

    def give_up(self, job: J, reason: str) -> None:
        """Record that a job of a single case kills its workers, or raise what is to end the run."""
        ...


@dataclass(frozen=True)
class Event:
    """News of a worker.

    Args:
        number: Of the worker.
        kind: "ready" to be sent jobs, "result" of the job it was sent, "error" or "died".
        value: The result, an exception, or the reason of its death.
        usage: See `Player.usage`, with a result.
    """

    number: int
    kind: str
    value: Any = None
    usage: Mapping[str, float] = field(default_factory=dict)


class Crew(Protocol):
    """Workers; each plays one job at a time."""

    size: int

    def start(self, number: int) -> None:
        """Start a worker, or another in place of one that died; it says when it is ready."""
        ...

    def send(self, number: int, job: Any) -> None:
        """Send a job to a worker that is idle."""
        ...

    def wait(self) -> list[Event]:
        """Wait until there is news."""
        ...

    def stop(self) -> None:
        """End all workers."""
        ...


@dataclass
class _Deal(Generic[J]):
    """A job, how many workers died over it, and how many may."""

    job: J
    tries: int
    deaths: int = 0


def share_out(crew: Crew, work: Work[J]) -> dict[str, float]:
    """Play all jobs of a work with a crew, and end the crew.

    Each worker has one job at a time, and jobs are asked for as workers become idle: there is never
    a list of them all. A worker that dies is replaced, and its job dealt again, `TRIES` times as it
    is, then case by case; what kills its worker even so is given up. An exception in a worker ends
    all at once: the same code would raise it again.

    Args:
        crew: The workers.
        work: The jobs.

    Returns:
        Usage, summed over the workers.

    Raises:
        MedSegError: Workers die before they are ready.
        Exception: Of a worker, or of `work`.
    """
    return _Sharing(crew, work).run()


class _Sharing(Generic[J]):
    def __init__(self, crew: Crew, work: Work[J]) -> None:
        self.crew, self.work = crew, work
        self.idle: list[int] = []
        self.busy: dict[int, _Deal[J]] = {}
        self.again: list[_Deal[J]] = []
        self.usage: dict[str, float] = {}
        self.used_by: dict[int, Mapping[str, float]] = {}  # workers that live
        self.deaths_at_start = 0

    def run(self) -> dict[str, float]:
        try:
            for number in range(self.crew.size):
                self.crew.start(number)
            while True:
                self.deal()
                if self.idle and not self.busy:
                    break
                results = [one for event in self.crew.wait() if (one := self.hear(event))]
                self.deal()  # workers play on while results are kept
                for job, result in results:
                    self.work.take(job, result)
        finally:
            self.crew.stop()
        for number in list(self.used_by):
            self.close_account(number)
        return self.usage

    def deal(self) -> None:
        """Give jobs to idle workers, for as long as there are some of both."""
        while self.idle:
            if self.again:
                deal = self.again.pop(0)
            elif (job := self.work.next()) is not None:
                deal = _Deal(job, TRIES)
            else:
                break
            number = self.idle.pop(0)
            self.busy[number] = deal
            self.crew.send(number, deal.job)

    def hear(self, event: Event) -> tuple[J, Any] | None:
        """Take note of an event; returns a job and its result."""
        if event.kind == "error":
            raise event.value
        if event.kind == "died":
            self.replace(event.number, str(event.value))
            return None
        self.deaths_at_start = 0
        self.idle.append(event.number)
        if event.kind == "ready":
            return None
        self.used_by[event.number] = event.usage
        return self.busy.pop(event.number).job, event.value

    def replace(self, number: int, reason: str) -> None:
        """Start another worker for one that died, and see to its job."""
        self.close_account(number)
        deal = self.busy.pop(number, None)
        if deal is not None:
            self.retry(deal, reason)
        else:
            self.deaths_at_start += 1
            if self.deaths_at_start >= FAILED_STARTS:
                raise MedSegError(
                    f"workers end before they can play, {self.deaths_at_start} in a row "
                    f"({reason}); is there memory for so many? What was played is kept, and "
                    "the same command goes on where it was"
                )
        self.crew.start(number)

    def retry(self, deal: _Deal[J], reason: str) -> None:
        deal.deaths += 1
        if deal.deaths < deal.tries:
            self.again.append(deal)
            return
        singles = self.work.split(deal.job)
        if len(singles) > 1:
            self.again += [_Deal(job, TRIES_ALONE) for job in singles]
        else:
            count = "1 worker" if deal.deaths == 1 else f"{deal.deaths} workers"
            self.work.give_up(deal.job, f"{count} died while it was played: {reason}")

    def close_account(self, number: int) -> None:
        """Add up the usage of a worker that plays no more."""
        add_usage(self.usage, self.used_by.pop(number, {}))
