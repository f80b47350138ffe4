"""Writers killed with SIGKILL at random moments, and what the store has of them afterwards."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.data.synthetic_episodes import synthetic_episode
from medseg_gym.trajectories.store.folder import FORMAT_FILE, MANIFEST
from medseg_gym.trajectories.store.reader import TrajectoryStore
from medseg_gym.trajectories.store.writer import TrajectoryWriter
from medseg_gym.trajectories.trajectory import EpisodeKey, Trajectory


@dataclass
class KillResult:
    """Result of killing writers.

    Args:
        kills: Writers killed.
        recorded: Episodes that they said they had finished.
        bystander: Episodes of the writer that went on.
        lost: Episodes missing or changed.
        lost_steps: Steps of unfinished episodes missing.
        while_opening: Kills before the writer was open.
        leftovers: Files in the end that are neither chunk, format.json nor the manifest.
    """

    kills: int = 0
    recorded: int = 0
    bystander: int = 0
    lost: list[str] = field(default_factory=list)
    lost_steps: int = 0
    while_opening: int = 0
    leftovers: list[str] = field(default_factory=list)


def _write_until_killed(folder: Path, run: int, pause: float, end: Connection) -> None:
    """The writer that is killed: says (episode, steps) after every step it has recorded."""
    end.send("opening")
    with TrajectoryWriter(folder, chunk_episodes=4) as writer:
        end.send("open")
        # Three episodes at a time, as in a vector environment.
        running: dict[int, tuple[str, int]] = {}
        following = 0
        while not end.poll():
            while len(running) < 3:
                running[following] = writer.begin(_nth(run, following).facts), 0
                following += 1
            rows = [(id, _nth(run, i).steps[taken]) for i, (id, taken) in running.items()]
            writer.add(rows)
            running = {i: (id, taken + 1) for i, (id, taken) in running.items()}
            end.send([(i, taken) for i, (_, taken) in running.items()])
            running = {i: v for i, v in running.items() if v[1] < len(_nth(run, i).steps)}
            time.sleep(pause)
    end.close()


def kill_writers(folder: Path, kills: int, seed: int = 0, longest: float = 0.25) -> KillResult:
    """Kill one writer after another in one store, beside a writer that goes on.

    Args:
        folder: Of the store.
        kills: How many.
        seed: Of the moments.
        longest: Seconds that a writer lives at most.

    Returns:
        What was found afterwards.
    """
    context = multiprocessing.get_context("spawn")
    moments = random.Random(seed)
    result = KillResult()
    reported: dict[tuple[int, int], int] = {}  # (run, episode) -> steps

    def start(run: int, pause: float) -> tuple[Any, Connection]:
        ours, theirs = context.Pipe()
        arguments = (folder, run, pause, theirs)
        process = context.Process(target=_write_until_killed, args=arguments, daemon=True)
        process.start()
        theirs.close()
        return process, ours

    def listen(run: int, end: Connection) -> None:
        try:
            while end.poll():
                message = end.recv()
                if isinstance(message, list):
                    for index, taken in message:
                        reported[run, index] = max(taken, reported.get((run, index), 0))
                elif message == "open":
                    opened.add(run)
        except (EOFError, OSError):
            pass  # dead; everything it has said is read

    opened: set[int] = set()
    bystander, bystander_end = start(0, 0.02)
    try:
        following = start(1, 0.0)
        assert [bystander_end.recv() for _ in range(2)] == ["opening", "open"]
        for run in range(1, kills + 1):
            process, end = following
            assert end.recv() == "opening"
            if run < kills:
                following = start(run + 1, 0.0)  # it imports while this one writes
            time.sleep(moments.choice((0.01, longest)) * moments.random())
            process.kill()
            process.join()
            assert process.exitcode == -signal.SIGKILL, process.exitcode
            listen(run, end)
            listen(0, bystander_end)
            result.while_opening += run not in opened
            store = TrajectoryStore(folder)  # it opens after every kill
            _check(store, {key: n for key, n in reported.items() if key[0] == run}, result)
        bystander_end.send("enough")
        while bystander.is_alive():
            listen(0, bystander_end)
            bystander.join(0.02)
        listen(0, bystander_end)
    finally:
        bystander.kill()
        bystander.join()
    TrajectoryWriter(folder).close()  # recovers the last one
    _check(TrajectoryStore(folder), reported, result)
    result.kills = kills
    result.recorded = sum(
        1 for (run, i), n in reported.items() if run and n == len(_nth(run, i).steps)
    )
    result.bystander = sum(1 for run, _ in reported if run == 0)
    kept = {FORMAT_FILE, MANIFEST, f"{MANIFEST}.lock"}
    names = [path.name for path in folder.iterdir() if path.suffix != ".parquet"]
    result.leftovers = [name for name in names if name not in kept]
    return result


def _nth(run: int, index: int) -> Trajectory:
    return synthetic_episode(f"case {index}", run, 64)


def _check(
    store: TrajectoryStore, reported: dict[tuple[int, int], int], result: KillResult
) -> None:
    begun: dict[EpisodeKey, Trajectory] = {one.key: one for one in store.episodes(unfinished=True)}
    for (run, index), taken in reported.items():
        expected = _nth(run, index)
        if taken < len(expected.steps):
            stored = store.episode(expected.key) if expected.key in store else None
            stored = stored or begun.get(expected.key)
            kept = stored.steps if stored else ()
            result.lost_steps += taken - sum(
                a == b for a, b in zip(kept[:taken], expected.steps[:taken], strict=False)
            )
        else:
            stored = store.episode(expected.key) if expected.key in store else None
            if stored is None or (stored.facts, stored.steps) != (expected.facts, expected.steps):
                result.lost.append(f"run {run}, episode {index}")
