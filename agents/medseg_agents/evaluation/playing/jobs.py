"""Jobs of an evaluation: batches of cases, always the same ones together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medseg_agents.evaluation.evaluate import Outcome


@dataclass(frozen=True)
class Entry:
    """One policy on one backbone with one seed: what has a file of records of its own.

    Args:
        policy: Its spec.
        backbone: Name.
        checkpoint: Of the backbone; None takes its own.
        seed: Of the policy.
        slots: Cases or volumes in a batch.
        group: Number of those that are loaded at the same time and play a batch one after another,
            so that its images are encoded once.
    """

    policy: str
    backbone: str
    checkpoint: str | None
    seed: int
    slots: int
    group: int


@dataclass(frozen=True)
class Part:
    """Cases of a batch that an entry plays.

    Args:
        entry: Its number.
        keys: All of the batch, or those that failed before; none only asks for the settings.
        batch_size: Cases in the whole batch.
    """

    entry: int
    keys: tuple[str, ...] = ()
    batch_size: int = 0


@dataclass(frozen=True)
class PlayJob:
    """A batch.

    Args:
        batch: Its number.
        parts: Of the entries of one group that have something to play in it.
    """

    batch: int
    parts: tuple[Part, ...]

    def __str__(self) -> str:
        """Name the cases."""
        keys = list(dict.fromkeys(key for part in self.parts for key in part.keys))
        if not keys:
            return "loading a policy and its backbone"
        others = f" and {len(keys) - 8} more" if len(keys) > 8 else ""
        return f"cases {', '.join(keys[:8])}{others}"


@dataclass(frozen=True)
class PlayedJob:
    """Result of a job.

    Args:
        settings: That decide the numbers, of every part.
        outcomes: Of every part.
        machine: That played.
    """

    settings: tuple[dict[str, Any], ...]
    outcomes: tuple[list[Outcome], ...]
    machine: str
