"""The time of an iteration, from rates that were measured or given."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg_agents.grpo.plan.conversation import Conversation
from medseg_agents.grpo.plan.machine import Machine
from medseg_agents.grpo.settings import ChatRun
from medseg_agents.runs.folder import RunFolder
from medseg_gym.errors import MedSegError


@dataclass(frozen=True)
class IterationTime:
    """Seconds of an iteration; None is not known.

    Args:
        playing: Of all runners at once, environment included.
        learning: Of all gradient steps.
        sampled_tokens: Completion tokens of the iteration.
        learned_tokens: Tokens of the rows that are learned from, of all epochs.
    """

    playing: float | None
    learning: float | None
    sampled_tokens: float
    learned_tokens: float

    @property
    def seconds(self) -> float | None:
        """Both together: they follow each other."""
        if self.playing is None or self.learning is None:
            return None
        return self.playing + self.learning


def iteration_time(run: ChatRun, talk: Conversation, machine: Machine) -> IterationTime:
    """Compute the time of an iteration.

    Args:
        run: Its settings.
        talk: An episode.
        machine: With the rates.

    Raises:
        MedSegError: The run that rates are read from cannot be used.
    """
    known = machine.known
    mean = known.completion or talk.completion / 2
    sampled_tokens = run.episodes * talk.turns * mean
    row = talk.prompt + (talk.turns - 1) * talk.turn + talk.turns * mean
    learned_tokens = run.epochs * run.episodes * row
    sampled, learned = known.sampled, known.learned
    if known.measured:
        rates = _measured(known.measured)
        sampled, learned = sampled or rates[0], learned or rates[1]
    players, learners = max(1, run.env_runners), max(1, run.learners)
    return IterationTime(
        sampled_tokens / (sampled * players) if sampled else None,
        learned_tokens / (learned * learners) if learned else None,
        sampled_tokens,
        learned_tokens,
    )


def _measured(folder: str) -> tuple[float, float]:
    """Rates of one runner and one learner of an earlier run."""
    run = RunFolder(folder)
    progress = Path(folder) / "progress.jsonl"
    if not (run.config_file.is_file() and progress.is_file()):
        raise MedSegError(f"--plan measured={folder}: no run with config.json and progress.jsonl")
    config = json.loads(run.config_file.read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in progress.read_text(encoding="utf-8").splitlines()]
    sampled = [row["tokens_per_second"] for row in rows if row.get("tokens_per_second")]
    learned = [
        row["learned_tokens"] / row["time/update"]
        for row in rows
        if row.get("learned_tokens") and row.get("time/update")
    ]
    if not sampled:
        raise MedSegError(f"--plan measured={folder}: no iteration logged tokens_per_second")
    runners, learners = (max(1, int(config.get(name) or 0)) for name in ("env_runners", "learners"))
    return (
        float(np.median(sampled)) / runners,
        float(np.median(learned)) / learners if learned else 0.0,
    )
