"""Cases that a policy gave up: kept with their reason, counted, never scored.

A model's server that refuses one conversation says nothing about the others. So the run goes on,
the record of the case says why it failed, means are over the cases that were played, and every
table says how many are missing. A server that is dead fails every case; `FailureLimit` ends that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medseg_gym.errors import MedSegError

if TYPE_CHECKING:  # options take their default from here, and need no torch
    from medseg_agents.evaluation.case_record import CaseRecord, EpisodeRecord
    from medseg_gym.policy import GivenUp

MAX_FAILURES = 20
"""Failed cases that end a run of a command, where nothing else is asked for."""


@dataclass(frozen=True)
class FailedCase:
    """A case without a score, and why.

    Args:
        case: Key.
        group: Patient, volume or image.
        modality: Of the image.
        target: What was to be segmented.
        failed: The reason; never empty.
        batch: Number of the batch it was played in.
        batch_size: Cases in that batch.
        seconds: Share of the wall time.
        tools: Used before it failed, in order; "" for an unreadable action.
        answers: What a model said before it failed.
    """

    case: str
    group: str
    modality: str
    target: str
    failed: str
    batch: int
    batch_size: int
    seconds: float
    tools: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


def failed_case(given_up: GivenUp, batch_size: int) -> FailedCase:
    """Return the record of an episode that was given up.

    Args:
        given_up: The episode.
        batch_size: Cases in its batch.
    """
    case = given_up.episode.case
    return FailedCase(
        case=case.key,
        group=case.group,
        modality=case.modality,
        target=case.target,
        failed=str(given_up.error) or type(given_up.error).__name__,
        batch=given_up.batch,
        batch_size=batch_size,
        seconds=given_up.seconds,
        tools=tuple(step.tool for step in given_up.episode.steps),
        answers=given_up.answers,
    )


class FailureLimit:
    """Ends a run after so many failed cases.

    Args:
        limit: The failed case with this number ends it.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.count = limit, 0

    def add(self, outcomes: Sequence[EpisodeRecord | FailedCase]) -> None:
        """Count what is on the disk by now.

        Raises:
            MedSegError: The limit is reached; it names the newest failed case and its reason.
        """
        failed = [one for one in outcomes if isinstance(one, FailedCase)]
        self.count += len(failed)
        if failed and self.count >= self.limit:
            raise MedSegError(
                f"{self.count} failed case{'' if self.count == 1 else 's'}, and the run ends at "
                f"max_failures={self.limit}. "
                f"The last was {failed[-1].case!r}: {failed[-1].failed}. "
                "What was played is kept; the same command plays failed cases again and goes on"
            )


def need_played(
    records: Sequence[EpisodeRecord], failed: Mapping[str, Sequence[FailedCase]], where: str
) -> None:
    """Refuse to make a table of nothing.

    Args:
        records: That would be summarised.
        failed: Failed cases, by policy.
        where: For the message.

    Raises:
        MedSegError: There is no record.
    """
    if not records:
        reasons = [f"{len(f)} failed for {who}: {f[0].failed}" for who, f in failed.items() if f]
        raise MedSegError(
            f"{where}: no case is left to show. {'; '.join(reasons)}. The same command plays them "
            "again"
        )


def lost_subsets(records: Sequence[CaseRecord], failed: Sequence[FailedCase], by: str) -> list[str]:
    """Name the values of `by` ("modality", "group" or "target") that failed cases alone have."""
    played = {getattr(record, by) for record in records}
    without = dict.fromkeys(v for one in failed if (v := getattr(one, by)) not in played)
    return [f"no case played of {', '.join(v or 'unknown' for v in without)}"] if without else []


def failure_notes(records: Sequence[CaseRecord], failed: Sequence[FailedCase]) -> list[str]:
    """Return notes on failed cases, and on steps lost to completions that were cut off.

    Args:
        records: Of the cases that were played.
        failed: The others.
    """
    notes = []
    if failed:
        notes.append(f"{len(failed)} of {len(failed) + len(records)} cases failed")
    cut = sum(record.cut_off for record in records)
    if cut:
        notes.append(f"{cut} answer{'' if cut == 1 else 's'} cut off at the limit")
    return notes


def pair_by_case(
    records: Sequence[Sequence[CaseRecord]], failed: Sequence[Sequence[FailedCase]]
) -> list[list[CaseRecord]]:
    """Leave a case that failed for one policy out for all, so that means compare the same cases.

    Args:
        records: Of each policy.
        failed: Of each policy.

    Returns:
        The records that stay, of each policy.
    """
    missing = {one.case for cases in failed for one in cases}
    return [[record for record in members if record.case not in missing] for members in records]
