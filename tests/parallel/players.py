"""Players and works for tests; workers import this module."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path


class Doubling:
    """Doubles numbers; what else it does is in the job: {"die": file} dies once, "kill" always."""

    def __init__(self, number=0):
        self.number, self.usage = number, {"jobs": 0.0}

    def play(self, job):
        self.usage["jobs"] += 1
        for one in job:
            if one == "kill":
                os._exit(9)
            if one == "raise":
                raise ZeroDivisionError("of a user")
            if isinstance(one, Path) and not one.exists():  # the first time alone
                one.touch()
                os._exit(9)
        time.sleep(0.001)
        return [one * 2 for one in job if isinstance(one, int)]

    def close(self):
        pass


class Slow(Doubling):
    def play(self, job):
        time.sleep(0.05)
        return super().play(job)


@dataclass
class Numbers:
    """Work of jobs that are given; keeps what came of them."""

    jobs: list
    results: list = field(default_factory=list)
    failed: list = field(default_factory=list)
    dealt: int = 0
    ahead: int = 0

    def next(self):
        if self.dealt == len(self.jobs):
            return None
        self.dealt += 1
        self.ahead = max(self.ahead, self.dealt - len(self.results))
        return self.jobs[self.dealt - 1]

    def take(self, job, result):
        self.results.append((job, result))

    def split(self, job):
        return [[one] for one in job]

    def give_up(self, job, reason):
        self.failed.append((job, reason))
