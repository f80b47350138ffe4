"""TrajectoryWriter: appends steps to a store so that a kill loses nothing but the step in flight.

Steps go to the writer's journal first, in one `write` per call; what the kernel has taken survives
the process. Once enough episodes are finished they become a Parquet chunk, and a new journal starts
with the episodes still running. The order (new journal, chunk, old journal away) means that at any
moment every step is in at least one file; readers drop what they meet twice.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from medseg_gym.storage.atomic_write import atomic_path, drop_lock, named_failures, try_lock
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.store import folder
from medseg_gym.trajectories.store.journal import begin_frame, header_frame, step_frame
from medseg_gym.trajectories.store.recovery import recover
from medseg_gym.trajectories.store.rows import to_table
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
        TrajectoryError: The folder is something else; or a dead writer's journal is damaged, which
            is said once: what can be read of it is kept and the file is set aside.
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
        with named_failures(folder.lock_path(self.path, self.name), TrajectoryError):
            # The lock dies with this process: that is how others know a dead writer's journals.
            self._lock = try_lock(folder.lock_path(self.path, self.name))
        self._facts: dict[str, EpisodeFacts] = {}
        self._steps: dict[str, list[RecordedStep]] = {}
        self._done: list[Trajectory] = []
        self._finished = 0
        self._begun = 0
        self._pending: list[str] = []  # begun, and not on disk yet
        self._frames = 0  # in the journal
        self._chunk = 0
        self._file: int | None = None
        try:
            self._file = self._new_journal()
        except BaseException:
            self._unlock()
            raise

    # recording ----------------------------------------------------------------------------------
    def begin(self, facts: EpisodeFacts) -> str:
        """Begin an episode; it is on disk with its first step.

        Returns:
            Its id.
        """
        id = f"{self.name}/{self._begun}"
        self._begun += 1
        self._facts[id], self._steps[id] = facts, []
        self._pending.append(id)
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
        # Numbers count only once the frames are written: a full disk must leave no gap in them.
        frames = [
            begin_frame(self._frames + i, id, self._facts[id]) for i, id in enumerate(self._pending)
        ]
        taken = {id: len(self._steps[id]) for id, _ in steps}
        for (id, step), verdict in zip(steps, verdicts, strict=True):
            frames.append(step_frame(self._frames + len(frames), id, taken[id], step, verdict))
            taken[id] += 1
        self._write(b"".join(frames))
        self._frames += len(frames)
        self._pending = []
        for (id, step), verdict in zip(steps, verdicts, strict=True):
            self._steps[id].append(step)
            if step.ended:
                self._take(id, verdict)
                self._finished += 1
        if self._finished >= self.chunk_episodes:
            self._turn_over(last=False)

    def abandon(self, id: str) -> None:
        """An episode broke off; what it has is kept as unfinished. Twice is harmless."""
        if id not in self._steps:
            return  # kept already, when the writer was closed
        if self._steps[id]:
            self._take(id, None)
        else:
            del self._facts[id], self._steps[id]
            if id in self._pending:
                self._pending.remove(id)

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
        frames = [header_frame()]
        for id, steps in self._steps.items():
            frames.append(begin_frame(len(frames), id, self._facts[id]))
            for taken, step in enumerate(steps):
                frames.append(step_frame(len(frames), id, taken, step, None))
        file = None
        try:
            # `_append` forces the frames to the disk itself, if that is wanted.
            with atomic_path(path, TrajectoryError, durable=False) as temporary:
                file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
                self._append(file, b"".join(frames))
        except BaseException:
            if file is not None:
                os.close(file)
            raise
        self._pending, self._frames = [], len(frames)
        return file

    def _write(self, data: bytes) -> None:
        if self._file is None:
            raise TrajectoryError(f"the writer of {self.path} is closed")
        with named_failures(self._journal(), TrajectoryError):
            self._append(self._file, data)

    def _append(self, file: int, data: bytes) -> None:
        good = os.fstat(file).st_size
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(file, view) :]
            if self.fsync:
                os.fsync(file)
        except BaseException:
            os.ftruncate(file, good)  # half a frame may only ever be the last one
            raise

    def _turn_over(self, last: bool) -> None:
        """Make a chunk of what is finished. If the disk refuses, everything stays as it was."""
        old, old_file = self._journal(), self._file
        assert old_file is not None
        if not last:
            self._chunk += 1
            try:
                self._file = self._new_journal()
            except BaseException:
                self._chunk -= 1
                raise
            # From here on all that is finished is in the old journal alone, should this fail.
        done, self._done, self._finished = self._done, [], 0
        try:
            if done:
                folder.write_chunk(self.path, old.stem, to_table(done))
            with named_failures(old, TrajectoryError):
                old.unlink()  # while the lock is held: nobody recovers it in between
        except TrajectoryError as error:
            raise TrajectoryError(
                f"{error}; nothing is lost: the episodes are in {old}, and the next writer of the "
                "store makes a chunk of it"
            ) from error
        finally:
            os.close(old_file)
            if last:
                self._file = None
                self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            drop_lock(self._lock)
            self._lock = None
