"""SplitWork: which batches are left to play, and what becomes of their outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from medseg_agents.evaluation.evaluate import Outcome, RecordFile, digest_of
from medseg_agents.evaluation.failed_cases import FailedCase, FailureLimit
from medseg_agents.evaluation.playing.jobs import Entry, Part, PlayedJob, PlayJob
from medseg_gym.cases import CaseSource
from medseg_gym.errors import MedSegError


class SplitWork:
    """Work of an evaluation, see `medseg_gym.parallel.Work`: group by group, batch by batch.

    The first job of a group only asks a worker for the settings of its entries: the files of
    records are opened with them, and tell which cases are left.

    Args:
        source: Of the cases.
        entries: What is played; `group` of each says with which others.
        keys: Of the cases or volumes, by group.
        open_file: Called with the number and the settings of an entry; returns its file.
        on_outcomes: Called with the number of an entry and outcomes of it, those in its file first.
        max_failures: Failed cases of an entry that end the run.

    Attributes:
        files: Of the entries.
        settings: Of the entries.
        machines: That played, as keys.
    """

    def __init__(
        self,
        source: CaseSource,
        entries: Sequence[Entry],
        keys: Sequence[Sequence[str]],
        open_file: Callable[[int, dict[str, Any]], RecordFile],
        on_outcomes: Callable[[int, Sequence[Outcome]], None],
        max_failures: int,
    ) -> None:
        self.source, self.entries, self.keys = source, entries, keys
        self.open_file, self.on_outcomes = open_file, on_outcomes
        self.files: dict[int, RecordFile] = {}
        self.settings: dict[int, dict[str, Any]] = {}
        self.machines: dict[str, None] = {}
        self._limits = [FailureLimit(max_failures) for _ in entries]
        self._group = -1
        self._jobs: Iterator[PlayJob] | None = iter(())
        self._digests: dict[int, str] = {}

    @property
    def machine(self) -> str:
        """Machines that played, in words."""
        return "; ".join(self.machines)

    @property
    def count(self) -> int:
        """Batches of all groups, the requests for settings among them."""
        batches = (-(-len(keys) // self._slots(group)) for group, keys in enumerate(self.keys))
        return sum(batches) + len(self.keys)

    def next(self) -> PlayJob | None:
        """Return the next batch, or what must be known before there can be one."""
        if self._jobs is None:
            return None  # the settings of this group are on their way
        job = next(self._jobs, None)
        if job is None and self._group + 1 < len(self.keys):
            self._group += 1
            self._jobs = None
            return PlayJob(0, tuple(Part(entry) for entry in self._members(self._group)))
        return job

    def take(self, job: PlayJob, result: PlayedJob) -> None:
        """Open the files of a group, or keep the outcomes of a batch."""
        self.machines[result.machine] = None
        for part, given, outcomes in zip(job.parts, result.settings, result.outcomes, strict=True):
            settings = {**given, "keys": self._digest(self.entries[part.entry].group)}
            if part.entry not in self.files:
                self._open(part.entry, settings)
            elif settings != self.settings[part.entry]:
                known = self.settings[part.entry]
                differ = [name for name in settings if settings[name] != known.get(name)]
                raise MedSegError(
                    f"workers disagree on {', '.join(differ)}: is a file changing, or do hosts "
                    "have different versions or devices?"
                )
            self._keep(part.entry, outcomes)
        if self._jobs is None and not job.parts[0].keys:
            self._jobs = self._batches(self._group)

    def split(self, job: PlayJob) -> list[PlayJob]:
        """Return a job per case and entry."""
        singles = [
            PlayJob(job.batch, (Part(part.entry, (key,), part.batch_size),))
            for part in job.parts
            for key in part.keys
        ]
        return singles or [job]

    def give_up(self, job: PlayJob, reason: str) -> None:
        """Record a failed case.

        Raises:
            MedSegError: It is no case: a policy or a backbone kills whoever loads it.
        """
        (part, *_) = job.parts
        entry = self.entries[part.entry]
        if not part.keys:
            raise MedSegError(
                f"policy {entry.policy!r} on backbone {entry.backbone!r} cannot be loaded: {reason}"
            )
        (key,) = part.keys
        place = self.source.place_of(key)  # its file is not read: that may be what kills
        failed = FailedCase(
            case=key,
            group=place.volume if place else key,
            modality="",
            target="",
            failed=reason,
            batch=job.batch,
            batch_size=part.batch_size,
            seconds=0.0,
        )
        self._keep(part.entry, [failed])

    def _open(self, entry: int, settings: dict[str, Any]) -> None:
        self.settings[entry] = settings
        self.files[entry] = file = self.open_file(entry, settings)
        if file.records:
            self.on_outcomes(entry, file.records)

    def _keep(self, entry: int, outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            self.files[entry].append(outcomes)
            self.on_outcomes(entry, outcomes)
            self._limits[entry].add(outcomes)

    def _batches(self, group: int) -> Iterator[PlayJob]:
        size = self._slots(group)
        played = {entry: self.files[entry].played for entry in self._members(group)}
        for batch, start in enumerate(range(0, len(self.keys[group]), size)):
            keys = self.keys[group][start : start + size]
            left = {
                entry: tuple(k for k in keys if k not in done) for entry, done in played.items()
            }
            parts = tuple(Part(entry, some, len(keys)) for entry, some in left.items() if some)
            if parts:
                yield PlayJob(batch, parts)

    def _members(self, group: int) -> list[int]:
        return [number for number, entry in enumerate(self.entries) if entry.group == group]

    def _slots(self, group: int) -> int:
        return self.entries[self._members(group)[0]].slots

    def _digest(self, group: int) -> str:
        if group not in self._digests:
            self._digests[group] = digest_of(self.keys[group])
        return self._digests[group]
