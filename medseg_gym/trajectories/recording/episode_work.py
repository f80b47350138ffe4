"""EpisodeWork: which batches a store lacks, and their episodes written into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.options import GenerateOptions
from medseg_gym.trajectories.store.reader import TrajectoryStore
from medseg_gym.trajectories.store.writer import TrajectoryWriter
from medseg_gym.trajectories.trajectory import EpisodeKey, Trajectory

SETTINGS = ("cases", "split", "policy", "backbone", "checkpoint", "checkpoint_hash", "options")
"""Facts that the episodes of a run have in common."""

MAX_FAILURES = 20
"""Cases that kill their workers until the run ends."""


@dataclass(frozen=True)
class EpisodeJob:
    """A batch of a rollout.

    Args:
        rollout: Its number.
        keys: Of the cases; none only asks for the settings.
    """

    rollout: int = 0
    keys: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Name the cases."""
        shown = ", ".join(self.keys[:8]) + (" and more" if len(self.keys) > 8 else "")
        return f"cases {shown}" if shown else "loading the policy and its backbone"


@dataclass(frozen=True)
class PlayedEpisodes:
    """Result of a job.

    Args:
        settings: Values of `SETTINGS`.
        episodes: In the order of slots.
    """

    settings: tuple[Any, ...]
    episodes: tuple[Trajectory, ...]


class EpisodeWork:
    """Work of `generate_episodes`, see `medseg_gym.parallel.Work`.

    Args:
        store: What is there.
        options: What is played.
        keys: Of the cases.
        on_episodes: Called with the number of episodes that were written.

    Attributes:
        writer: Of the store; set before the first job.
        count_known: Episodes that are there.
    """

    writer: TrajectoryWriter

    def __init__(
        self,
        store: TrajectoryStore,
        options: GenerateOptions,
        keys: Sequence[str],
        on_episodes: Callable[[int], None],
    ) -> None:
        self.path, self.options, self.keys = store.path, options, keys
        self._on_episodes = on_episodes
        known = {key for key in store.keys() if key.seed == options.seed}
        rollouts = range(options.rollouts)
        wanted = {EpisodeKey(case, options.seed, rollout) for rollout in rollouts for case in keys}
        self._known = known & wanted
        self.count_known = len(self._known)
        self._others = self._settings_in(store)
        self._settings: tuple[Any, ...] | None = None
        self._asked = False
        self._jobs = self._batches()
        self._failed: dict[str, str] = {}

    @property
    def count(self) -> int:
        """Batches that something is missing of."""
        return sum(1 for _ in self._batches())

    def next(self) -> EpisodeJob | None:
        """Return the next batch; first of all a request for the settings."""
        if self._settings is not None:
            return next(self._jobs, None)
        if self._asked:
            return None
        self._asked = True
        return EpisodeJob()

    def take(self, job: EpisodeJob, result: PlayedEpisodes) -> None:
        """Compare the settings, and write the episodes."""
        if self._settings is None:
            self._settings = result.settings
            self._others.add(result.settings)
        for other in self._others - {result.settings}:
            raise TrajectoryError(
                f"{self.path} holds these episodes from a run with other settings (differs: "
                f"{', '.join(_differ(other, result.settings))}); give another folder or another "
                "seed"
                if other != self._settings
                else f"workers disagree on {', '.join(_differ(other, result.settings))}: is a file "
                "changing, or do hosts have different versions?"
            )
        fresh = [one for one in result.episodes if one.key not in self._known]
        self._write(fresh)
        self._known |= {one.key for one in fresh}
        if fresh:
            self._on_episodes(len(fresh))

    def split(self, job: EpisodeJob) -> list[EpisodeJob]:
        """Return a job per case."""
        return [EpisodeJob(job.rollout, (key,)) for key in job.keys] or [job]

    def give_up(self, job: EpisodeJob, reason: str) -> None:
        """Remember a case that kills its workers.

        Raises:
            TrajectoryError: `MAX_FAILURES` of them, or it is no case that kills.
        """
        if not job.keys:
            raise TrajectoryError(
                f"policy {self.options.annotator!r} on {self.options.backbone!r} cannot be loaded: "
                f"{reason}"
            )
        self._failed[f"{job.keys[0]} (rollout {job.rollout})"] = reason
        if len(self._failed) >= MAX_FAILURES:
            self.finish()

    def finish(self) -> None:
        """Say what is missing in the store.

        Raises:
            TrajectoryError: Cases failed.
        """
        if self._failed:
            count = len(self._failed)
            names = "; ".join(f"{case}: {reason}" for case, reason in self._failed.items())
            raise TrajectoryError(
                f"{count} failed case{'' if count == 1 else 's'}: {names}. The other episodes are "
                f"in {self.path}; the same command plays failed cases again"
            )

    def _write(self, episodes: Sequence[Trajectory]) -> None:
        ids = [self.writer.begin(one.facts) for one in episodes]
        rows = [(id, step) for id, one in zip(ids, episodes, strict=True) for step in one.steps]
        verdicts = [one.accepted if step.ended else None for one in episodes for step in one.steps]
        if rows:
            self.writer.add(rows, verdicts)

    def _batches(self) -> Iterator[EpisodeJob]:
        size, seed = self.options.num_envs, self.options.seed
        for rollout in range(self.options.rollouts):
            for start in range(0, len(self.keys), size):
                keys = tuple(self.keys[start : start + size])
                if not all(EpisodeKey(case, seed, rollout) in self._known for case in keys):
                    yield EpisodeJob(rollout, keys)

    def _settings_in(self, store: TrajectoryStore) -> set[tuple[Any, ...]]:
        table = store.to_table(["case", "seed", "rollout", *SETTINGS])
        columns = [table[name].to_pylist() for name in table.column_names]
        rows = zip(*columns, strict=True)
        return {row[3:] for row in rows if EpisodeKey(*row[:3]) in self._known}


def _differ(one: tuple[Any, ...], other: tuple[Any, ...]) -> list[str]:
    return [name for name, a, b in zip(SETTINGS, one, other, strict=True) if a != b]
