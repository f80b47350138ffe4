"""Recovery: journals of dead writers become chunks; a damaged journal is set aside."""

from __future__ import annotations

import re
from pathlib import Path

from medseg_gym.storage.atomic_write import drop_lock, named_failures, set_aside, try_lock
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.store import folder
from medseg_gym.trajectories.store.journal import DamagedJournal, read_journal
from medseg_gym.trajectories.store.rows import to_table

_JOURNAL = re.compile(r"(.*)-\d+")


def recover(path: Path) -> int:
    """Turn the journals of dead writers into chunks.

    Of a damaged journal everything that can be read becomes a chunk, and the file itself is kept as
    `NAME.journal.damaged`.

    Args:
        path: Folder of the store.

    Returns:
        How many journals there were.

    Raises:
        TrajectoryError: Journals were damaged. It is said once: the next call finds none.
    """
    count = 0
    messages: list[str] = []
    for journal in folder.journal_paths(path):
        match = _JOURNAL.fullmatch(journal.stem)
        writer = match[1] if match else journal.stem
        with named_failures(folder.lock_path(path, writer), TrajectoryError):
            lock = try_lock(folder.lock_path(path, writer))
        if lock is None:
            continue  # its writer lives, or somebody else recovers it
        try:
            with named_failures(journal, TrajectoryError):
                # It may be gone: its writer, or another recovery, was faster.
                count += journal.exists() and _take(journal, messages)
                for leftover in folder.part_paths(path, f"{writer}-"):
                    leftover.unlink(missing_ok=True)
        finally:
            drop_lock(lock)
    _sweep(path)
    if messages:
        raise TrajectoryError("; ".join(messages) + ". Give the same command again to go on")
    return count


def _take(journal: Path, messages: list[str]) -> bool:
    try:
        trajectories, damage = read_journal(journal), None
    except DamagedJournal as error:
        trajectories, damage = error.episodes, error
    if trajectories:
        folder.write_chunk(journal.parent, journal.stem, to_table(trajectories))
    if damage is None:
        journal.unlink()
        return True
    aside = set_aside(journal)
    finished = sum(one.finished for one in trajectories)
    messages.append(
        f"{journal} is damaged at byte {damage.damaged[0]}: {finished} finished and "
        f"{len(trajectories) - finished} unfinished episodes could be read and are kept in the "
        "store, the "
        f"file itself is kept as {aside.name}"
    )
    return True


def _sweep(path: Path) -> None:
    """Remove what writers left that were killed while they opened the store."""
    for leftover in folder.part_paths(path, f"{folder.FORMAT_FILE}."):
        leftover.unlink(missing_ok=True)
    for file in path.glob("*.lock"):
        writer = file.name.removesuffix(".lock")
        if file.name == f"{folder.MANIFEST}.lock" or any(path.glob(f"{writer}-*.journal")):
            continue
        lock = try_lock(file)
        if lock is not None:
            for leftover in folder.part_paths(path, f"{writer}-"):
                leftover.unlink(missing_ok=True)
            drop_lock(lock)
