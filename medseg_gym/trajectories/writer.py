"""TrajectoryWriter: appends steps to a store so that a kill loses nothing but the step in flight.

Steps go to the writer's journal first, in one `write` per call; what the kernel has taken survives
the process. Once enough episodes are finished they become a Parquet chunk, and a new journal starts
with the episodes still running. The order (new journal, chunk, old journal away) means that at any
moment every step is in at least one file; readers drop what they meet twice.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from medseg_gym.trajectories import folder
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.journal import begin_frame, header_frame, read_journal, step_frame
from medseg_gym.trajectories.rows import to_table
from medseg_gym.trajectories.trajectory import EpisodeFacts, RecordedStep, Trajectory


class TrajectoryWriter:
    """One of any number of writers of a store.

    Opening it also turns journals that dead writers left into chunks. A writer belongs to one
    process and one thread. Use it as a context manager, or `close` it.

    Args:
        path: Folder of the store; made if it is not there.
        chunk_episodes: Finished episodes that make a chunk.
        fsync: Force every call to the disk: safe against a power cut too, but slow.

    Raises:
        TrajectoryError: The folder is something else, or a dead writer's journal is damaged.
    """

    def __init__(self, path: str | Path, chunk_episodes: int = 256, fsync: bool = False) -> None:
        if chunk_episodes < 1:
            raise TrajectoryError(f"chunk_episodes must be at least 1, got {chunk_episodes}")
        self.path = Path(path)
        self.chunk_episodes = chunk_episodes
        self.fsync = fsync
        folder.make_folder(self.path)
        recover(self.path)
        self.name = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._facts: dict[str, EpisodeFacts] = {}
        self._steps: dict[str, list[RecordedStep]] = {}
        self._done: list[Trajectory] = []
        self._finished = 0
        self._begun = 0
        self._pending = b""
        self._chunk = 0
        self._file: int | None = self._new_journal()

    # recording ----------------------------------------------------------------------------------
    def begin(self, facts: EpisodeFacts) -> str:
        """Begin an episode; it is on disk with its first step.

        Returns:
            Its id.
        """
        id = f"{self.name}/{self._begun}"
        self._begun += 1
        self._facts[id], self._steps[id] = facts, []
        self._pending += begin_frame(id, facts)
        return id

    def add(
        self,
        steps: Sequence[tuple[str, RecordedStep]],
        accepted: Sequence[bool | None] | None = None,
    ) -> None:
        """Record steps, of any episodes; they are safe once this returns.

        Args:
            steps: (id, step) pairs; a step that ended finishes its episode.
            accepted: The annotator's verdict on each episode that ends here, else None.
        """
        verdicts = list(accepted) if accepted is not None else [None] * len(steps)
        frames = [
            step_frame(id, step, verdict)
            for (id, step), verdict in zip(steps, verdicts, strict=True)
        ]
        self._write(self._pending + b"".join(frames))
        self._pending = b""
        for (id, step), verdict in zip(steps, verdicts, strict=True):
            self._steps[id].append(step)
            if step.ended:
                self._take(id, verdict)
                self._finished += 1
        if self._finished >= self.chunk_episodes:
            self._turn_over(last=False)

    def abandon(self, id: str) -> None:
        """An episode broke off; what it has is kept as unfinished."""
        if self._steps[id]:
            self._take(id, None)
        else:
            del self._facts[id], self._steps[id]

    def close(self) -> None:
        """Turn everything into a chunk; running episodes are kept as unfinished."""
        if self._file is not None:
            for id in list(self._facts):
                self.abandon(id)
            self._turn_over(last=True)

    def __enter__(self) -> TrajectoryWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # files --------------------------------------------------------------------------------------
    def _take(self, id: str, accepted: bool | None) -> None:
        facts, steps = self._facts.pop(id), self._steps.pop(id)
        self._done.append(Trajectory(id, facts, tuple(steps), accepted))

    def _journal(self) -> Path:
        return self.path / f"{self.name}-{self._chunk:06d}.journal"

    def _new_journal(self) -> int:
        path = self._journal()
        part = path.with_name(path.name + ".part")
        try:
            file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
            # The lock dies with this process: that is how others know a dead writer's journal.
            fcntl.flock(file, fcntl.LOCK_EX)
            self._file = file
            carried = [header_frame()]
            for id, steps in self._steps.items():
                carried.append(begin_frame(id, self._facts[id]))
                carried += [step_frame(id, step, None) for step in steps]
            self._pending = b""
            self._write(b"".join(carried))
            os.replace(part, path)
        except OSError as error:
            raise TrajectoryError(f"{path} cannot be made: {error}") from None
        return file

    def _write(self, data: bytes) -> None:
        if self._file is None:
            raise TrajectoryError(f"the writer of {self.path} is closed")
        good = os.fstat(self._file).st_size
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
            if self.fsync:
                os.fsync(self._file)
        except BaseException as error:
            os.ftruncate(self._file, good)  # half a frame may only ever be the last one
            if isinstance(error, OSError):
                raise TrajectoryError(f"{self._journal()} cannot be written: {error}") from None
            raise

    def _turn_over(self, last: bool) -> None:
        old, old_file = self._journal(), self._file
        assert old_file is not None
        self._chunk += 1
        if not last:
            self._new_journal()
        try:
            if self._done:
                folder.write_chunk(old, to_table(self._done), self.fsync)
            old.unlink()  # while the lock is held: nobody recovers it in between
        except OSError as error:
            raise TrajectoryError(f"{old} cannot become a chunk: {error}") from None
        os.close(old_file)
        self._file = None if last else self._file
        self._done, self._finished = [], 0


def recover(path: Path) -> int:
    """Turn the journals of dead writers into chunks.

    Args:
        path: Folder of the store.

    Returns:
        How many journals there were.

    Raises:
        TrajectoryError: A journal is damaged.
    """
    count = 0
    for journal in folder.journal_paths(path):
        try:
            file = os.open(journal, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not journal.exists():  # its writer, or another recovery, was faster
                continue
            found = read_journal(journal)
            if found:
                folder.write_chunk(journal, to_table(found))
            journal.unlink()
            for part in path.glob(f"{journal.stem.rpartition('-')[0]}-*.part"):
                part.unlink(missing_ok=True)
            count += 1
        except BlockingIOError:
            continue
        finally:
            os.close(file)
    return count
