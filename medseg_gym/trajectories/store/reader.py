"""TrajectoryStore: reads what writers have recorded, while they go on writing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.store import folder
from medseg_gym.trajectories.store.arrow import pa
from medseg_gym.trajectories.store.journal import read_journal
from medseg_gym.trajectories.store.rows import SCHEMA, from_rows, to_table
from medseg_gym.trajectories.trajectory import EpisodeKey, Trajectory


class _Entry(NamedTuple):
    key: EpisodeKey
    steps: int
    finished: bool
    chunk: Path | None  # None: in a journal, and so in memory


class TrajectoryStore:
    """The episodes of a store, as they were when it was opened; reading changes nothing on disk.

    Chunks are read when they are needed, journals at once. Where several finished episodes have one
    key, the first one (by file name) counts and `duplicates` counts the others.

    Args:
        path: Folder of the store.

    Raises:
        TrajectoryError: No store, a newer format version, or a damaged or missing file, which it
            names.

    Example:
        >>> from medseg_gym.trajectories import TrajectoryStore
        >>> store = TrajectoryStore("out/trajectories")  # doctest: +SKIP
        >>> for trajectory in store:  # doctest: +SKIP
        ...     print(trajectory.key, trajectory.dice, len(trajectory.steps))
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        folder.open_folder(self.path)
        # Journals before chunks: what turns from one into the other meanwhile is seen twice.
        self._in_memory = self._read_journals()
        entries: dict[str, _Entry] = {}
        counts: dict[str, tuple[int, int]] = {}
        for chunk in folder.chunk_paths(self.path):
            indexed = _index_chunk(chunk)
            counts[chunk.name] = len(indexed), sum(entry.steps for entry in indexed.values())
            for id, entry in indexed.items():
                if id not in entries or entry.steps > entries[id].steps:
                    entries[id] = entry
        folder.check_manifest(self.path, counts)
        for id, trajectory in self._in_memory.items():
            if id not in entries or len(trajectory.steps) > entries[id].steps:
                entries[id] = _Entry(
                    trajectory.key, len(trajectory.steps), trajectory.finished, None
                )
        self.duplicates = 0
        self._ids: dict[EpisodeKey, str] = {}
        for id, entry in entries.items():
            if entry.finished:
                self.duplicates += entry.key in self._ids
                self._ids.setdefault(entry.key, id)
        self._unfinished = [id for id, entry in entries.items() if not entry.finished]
        self._entries = entries
        self._cached: tuple[Path, dict[str, Trajectory]] | None = None

    def _read_journals(self) -> dict[str, Trajectory]:
        while True:
            trajectories: dict[str, Trajectory] = {}
            try:
                for path in folder.journal_paths(self.path):
                    for trajectory in read_journal(path):
                        before = trajectories.get(trajectory.id)
                        if before is None or len(trajectory.steps) > len(before.steps):
                            trajectories[trajectory.id] = trajectory
                return trajectories
            except FileNotFoundError:
                continue  # it has just become a chunk and its successor is there: look again

    @property
    def damaged(self) -> list[Path]:
        """Journals that were damaged and set aside; what could be read of them is in the store."""
        return folder.damaged_paths(self.path)

    def __len__(self) -> int:
        """Finished episodes."""
        return len(self._ids)

    def __contains__(self, key: object) -> bool:
        return key in self._ids

    def __iter__(self) -> Iterator[Trajectory]:
        """Finished episodes, one chunk in memory at a time."""
        return self.episodes()

    def keys(self) -> list[EpisodeKey]:
        """Of the finished episodes, in the order of iteration."""
        return list(self._ids)

    def episodes(self, unfinished: bool = False) -> Iterator[Trajectory]:
        """Go through the episodes, one chunk in memory at a time.

        Args:
            unfinished: Give those that broke off instead, with the steps they have.
        """
        for id in self._unfinished if unfinished else list(self._ids.values()):
            yield self._read(id)

    def episode(self, key: EpisodeKey | tuple[str, int, int]) -> Trajectory:
        """The finished episode with a key.

        Raises:
            TrajectoryError: There is none.
        """
        id = self._ids.get(EpisodeKey(*key))
        if id is None:
            raise TrajectoryError(f"{self.path} has no finished episode {tuple(key)}")
        return self._read(id)

    def _read(self, id: str) -> Trajectory:
        chunk = self._entries[id].chunk
        if chunk is None:
            return self._in_memory[id]
        if self._cached is None or self._cached[0] != chunk:
            rows: dict[str, list[dict[str, Any]]] = {}
            for row in folder.read_chunk(chunk).to_pylist():
                rows.setdefault(row["id"], []).append(row)
            self._cached = chunk, {key: from_rows(steps) for key, steps in rows.items()}
        return self._cached[1][id]

    def to_table(self, columns: list[str] | None = None) -> pa.Table:
        """All finished episodes as one pyarrow table, one row a step.

        Args:
            columns: Names of the columns wanted; None gives all of them.
        """
        wanted = list(SCHEMA.names) if columns is None else list(columns)
        unknown = [name for name in wanted if name not in SCHEMA.names]
        if unknown:
            raise TrajectoryError(f"a store has no column {unknown}; it has: {SCHEMA.names}")
        by_chunk: dict[Path | None, set[str]] = {}
        for id in self._ids.values():
            by_chunk.setdefault(self._entries[id].chunk, set()).add(id)
        tables = []
        for chunk, ids in by_chunk.items():
            if chunk is None:
                tables.append(to_table(self._in_memory[id] for id in ids).select(wanted))
                continue
            table = folder.read_chunk(chunk, list(dict.fromkeys([*wanted, "id"])))
            keep = pa.array([id in ids for id in table["id"].to_pylist()], pa.bool_())
            tables.append(table.filter(keep).select(wanted))
        empty = SCHEMA.empty_table().select(wanted)
        return pa.concat_tables(
            [empty.replace_schema_metadata(None)]
            + [table.replace_schema_metadata(None) for table in tables]
        ).replace_schema_metadata(SCHEMA.metadata)


def _index_chunk(path: Path) -> dict[str, _Entry]:
    table = folder.read_chunk(path, ["id", "case", "seed", "rollout", "finished"])
    entries: dict[str, _Entry] = {}
    columns = (table[name].to_pylist() for name in table.column_names)
    for id, case, seed, rollout, finished in zip(*columns, strict=True):
        before = entries.get(id)
        steps = before.steps + 1 if before else 1
        entries[id] = _Entry(EpisodeKey(case, seed, rollout), steps, finished, path)
    return entries
