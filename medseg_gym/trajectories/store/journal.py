"""The journal: what a writer appends before anything is columnar.

A journal is a file of frames (see `frames`): one that says what the file is, one for every episode
that begins, one for every step. A kill can only tear the last one, and readers drop that. Anything
else that cannot be read is damage, and damage is an error: it never shortens an episode unnoticed.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from pathlib import Path

from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.store.frames import Frame, frame, read_frames
from medseg_gym.trajectories.store.rows import (
    FORMAT,
    FORMAT_VERSION,
    check_version,
    facts_from_row,
    facts_to_row,
    step_from_row,
    step_to_row,
)
from medseg_gym.trajectories.trajectory import EpisodeFacts, RecordedStep, Trajectory


class DamagedJournal(TrajectoryError):
    """A journal is damaged.

    Args:
        path: Of the journal.
        damaged: Where, in bytes.
        episodes: What is left of it: whole episodes, and others up to the first step that is
            missing, as unfinished ones.
    """

    def __init__(self, path: Path, damaged: list[int], episodes: list[Trajectory]) -> None:
        self.path, self.damaged, self.episodes = path, damaged, episodes
        finished = sum(one.finished for one in episodes)
        places = "" if len(damaged) == 1 else f" and {len(damaged) - 1} more places"
        super().__init__(
            f"{path} is damaged at byte {damaged[0]}{places}; {finished} finished and "
            f"{len(episodes) - finished} unfinished episodes in it can be read. `medseg "
            "trajectories recover STORE` keeps these and sets the file aside (as does the next "
            "writer of the store)"
        )

    def __reduce__(self) -> tuple:
        return DamagedJournal, (self.path, self.damaged, self.episodes)


def header_frame() -> bytes:
    """The first frame of every journal."""
    return frame(0, {"format": FORMAT, "version": FORMAT_VERSION})


def begin_frame(number: int, id: str, facts: EpisodeFacts) -> bytes:
    """An episode begins.

    Args:
        number: Of the frame in its journal.
        id: Of the episode.
        facts: Of the episode.
    """
    row = facts_to_row(facts)
    truth, begun = row.pop("truth"), row.pop("initial_mask")
    if begun is not None:
        row["initial_mask"] = b64encode(begun).decode()
    return frame(number, {"begin": id, **row}, truth)


def step_frame(
    number: int, id: str, taken: int, step: RecordedStep, accepted: bool | None
) -> bytes:
    """A step was taken.

    Args:
        number: Of the frame in its journal.
        id: Of the episode.
        taken: Steps of the episode before this one.
        step: The step.
        accepted: The verdict, which the last step carries.
    """
    row = step_to_row(step)
    mask = row.pop("mask")
    return frame(number, {"of": id, "step": taken, "accepted": accepted, **row}, mask)


def read_journal(path: Path) -> list[Trajectory]:
    """Read every episode of a journal, unfinished ones with the steps so far.

    Args:
        path: Of the journal; another process may be writing to it.

    Returns:
        Episodes with at least one step, in order of their beginning.

    Raises:
        DamagedJournal: It is damaged; the error holds what is left.
        TrajectoryError: Foreign, or of a newer version.
        FileNotFoundError: The journal has become a chunk in the meantime.
    """
    try:
        frames = read_frames(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise TrajectoryError(f"{path} cannot be read: {error.strerror}") from error
    if frames.frames and ("format" in frames.frames[0].record or not frames.damaged):
        check_version(path, frames.frames[0].record)
    episodes, torn_apart = _episodes(frames.frames)
    if frames.damaged or torn_apart:
        raise DamagedJournal(path, frames.damaged or [0], episodes)
    return episodes


def _episodes(frames: list[Frame]) -> tuple[list[Trajectory], bool]:
    """Episodes out of frames, each up to the first step that is missing; and whether one is."""
    facts: dict[str, EpisodeFacts] = {}
    steps: dict[str, list[RecordedStep]] = {}
    accepted: dict[str, bool | None] = {}
    closed: set[str] = set()  # a step is missing
    torn_apart = False
    for one in frames:
        record = one.record
        if one.holed and one.number is None:
            closed.update(facts)  # such frames do not say which step they are
        if "begin" in record:
            id = record["begin"]
            row = {**record, "truth": one.blob}
            if "initial_mask" in row:
                row["initial_mask"] = b64decode(row["initial_mask"])
            facts[id], steps[id] = facts_from_row(row), []
        elif "of" in record:
            id = record["of"]
            if id not in facts or record.get("step", len(steps[id])) != len(steps[id]):
                closed.add(id)
            if id in closed:
                torn_apart = True
                continue
            steps[id].append(step_from_row({**record, "mask": one.blob}))
            accepted[id] = record["accepted"]
    kept = [Trajectory(id, facts[id], tuple(steps[id]), accepted[id]) for id in facts if steps[id]]
    return kept, torn_apart
