"""Results of checks: passed, skipped and why, or which law broke, where and the way out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal


class VectorEnvError(AssertionError):
    """A vector environment broke a law.

    Attributes:
        check: Name of the check that failed, as listed in a `VectorEnvReport`.
        slots: The sub-environments concerned; empty where it is all of them or none in particular.
        expected: What the law asks for.
        actual: What the environment did, with the place of the first difference.
        cause: The likely cause and the way out.
    """

    def __init__(
        self,
        expected: str,
        actual: str,
        cause: str,
        *,
        slots: Sequence[int] = (),
        check: str = "",
    ) -> None:
        super().__init__(expected, actual, cause)
        self.expected = expected
        self.actual = actual
        self.cause = cause
        self.slots = tuple(int(slot) for slot in slots)
        self.check = check

    def __str__(self) -> str:
        where = f" (slot {', '.join(map(str, self.slots))})" if self.slots else ""
        return (
            f"vector environment check '{self.check}' failed{where}\n"
            f"  expected: {self.expected}\n"
            f"  found:    {self.actual}\n"
            f"  likely cause: {self.cause}"
        )


class CheckSkipped(Exception):
    """Raised inside a check that cannot be made here; the message is the reason reported."""


class PartnerError(ValueError):
    """`make_vector` built something that is no partner of the environment under test."""


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check; `reason` says why it was skipped and is empty otherwise."""

    name: str
    status: Literal["passed", "skipped"]
    reason: str = ""


@dataclass
class VectorEnvReport:
    """Results of `check_vector_env`: one per check, in the order in which they ran."""

    env: str
    results: list[CheckResult] = field(default_factory=list)

    @property
    def passed(self) -> list[str]:
        """Names of the checks that passed."""
        return [result.name for result in self.results if result.status == "passed"]

    @property
    def skipped(self) -> dict[str, str]:
        """Reason by name of the checks that could not be made."""
        return {r.name: r.reason for r in self.results if r.status == "skipped"}

    def __str__(self) -> str:
        lines = [f"{self.env}: {len(self.passed)} checks passed, {len(self.skipped)} skipped"]
        for result in self.results:
            reason = f": {result.reason}" if result.reason else ""
            lines.append(f"  {result.status:<7}  {result.name}{reason}")
        return "\n".join(lines)
