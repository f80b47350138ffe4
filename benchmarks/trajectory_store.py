"""What recording costs, and whether a store survives being killed.

    python -m benchmarks.trajectory_store --kills 50

Three tables: made-up episodes written and read (with and without fsync); environments with and
without a recorder; and writers killed with SIGKILL at random moments while another one goes on
writing to the same store. A killed writer says what it has recorded; all of it must be there
afterwards, bit for bit. The exit code is 1 if anything is lost.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import tempfile
import time
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from medseg_gym.prompts import AddBox, AddPoint, Prompt, Stop
from medseg_gym.trajectories.mask_codec import pack_mask
from medseg_gym.trajectories.store import TrajectoryStore
from medseg_gym.trajectories.trajectory import EpisodeFacts, EpisodeKey, RecordedStep, Trajectory
from medseg_gym.trajectories.writer import TrajectoryWriter

SIDE = 256


def _blob(generator: np.random.Generator, side: int) -> np.ndarray:
    """An ellipse with a wavy outline, (side, side) bool."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    centre_x, centre_y = generator.uniform(0.3, 0.7, 2)
    radius_x, radius_y = generator.uniform(0.05, 0.25, 2)
    angle = np.arctan2(y - centre_y, x - centre_x)
    wave = 1 + 0.1 * np.sin(angle * generator.integers(3, 9))
    return ((x - centre_x) / radius_x) ** 2 + ((y - centre_y) / radius_y) ** 2 < wave


@lru_cache(maxsize=4)
def _blobs(side: int) -> list[np.ndarray]:
    """A stock of masks; an episode shifts them, so that no two of its masks are alike."""
    generator = np.random.default_rng(side)
    return [_blob(generator, side) for _ in range(32)]


@lru_cache(maxsize=10_000)
def made_up(case: str, seed: int, side: int = SIDE) -> Trajectory:
    """An episode that depends on the arguments alone."""
    generator = np.random.default_rng([seed, *case.encode()])

    def mask_now() -> bytes:
        blob = _blobs(side)[int(generator.integers(32))]
        return pack_mask(np.roll(blob, generator.integers(-side // 4, side // 4, 2), (0, 1)))

    length = int(generator.integers(2, 6))
    facts = EpisodeFacts(
        key=EpisodeKey(case, seed, 0),
        cases="phantoms",
        split="train",
        source="made up",
        group=case,
        target="a blob",
        modality="CT",
        synthetic=True,
        height=side,
        width=side,
        image_hash="0" * 32,
        truth=mask_now(),
        policy="nobody",
        sees_truth=True,
        backbone="none",
        checkpoint=None,
        checkpoint_hash=None,
        options={"max_steps": 5, "bins": 1000, "reward": "dice_gain"},
    )
    steps, mask = [], b""
    for number in range(length):
        last = number == length - 1
        fractions = generator.random(4).tolist()
        prompt: Prompt = AddPoint(fractions[0], fractions[1], bool(generator.integers(2)))
        prompt = Stop() if last else prompt if number else AddBox(*fractions)
        mask = mask if last else mask_now()
        reward, dice = generator.random(2).tolist()
        terms = {"dice_gain": reward, "cost": 0.01}
        steps.append(
            RecordedStep(
                prompt, True, "", reward, terms, dice, dice / 2, mask, last, last, truncated=False
            )
        )
    return Trajectory("", facts, tuple(steps))


def write_made_up(writer: TrajectoryWriter, episode: Trajectory) -> None:
    """Record an episode step by step."""
    id = writer.begin(episode.facts)
    for step in episode.steps:
        writer.add([(id, step)])


# speed -------------------------------------------------------------------------------------------
def time_store(folder: Path, episodes: int, fsync: bool) -> dict[str, Any]:
    """Write and read made-up episodes."""
    made = [made_up(f"case {i}", 0) for i in range(episodes)]
    began = time.perf_counter()
    with TrajectoryWriter(folder, fsync=fsync) as writer:
        for episode in made:
            write_made_up(writer, episode)
    written = time.perf_counter() - began
    began = time.perf_counter()
    read = sum(len(episode.masks) for episode in TrajectoryStore(folder))
    return {
        "fsync": fsync,
        "episodes": episodes,
        "steps": read,
        "written_per_second": episodes / written,
        "read_per_second": episodes / (time.perf_counter() - began),
        "bytes_per_episode": sum(p.stat().st_size for p in folder.glob("*.parquet")) / episodes,
    }


def time_recorder(folder: Path, backbone: str, num_envs: int, steps: int) -> dict[str, Any]:
    """Random actions in a vector environment, with and without a recorder, turn about."""
    import gymnasium as gym

    import medseg_gym  # noqa: F401  (registers the id)
    from medseg_gym.cases import load_cases
    from medseg_gym.trajectories.recorder import VectorRecorder

    source = load_cases("phantoms", "train")
    options: dict[str, Any] = {"cases": [source[i] for i in range(32)], "backbone": backbone}
    plain = gym.make_vec("MedSeg-v0", num_envs=num_envs, **options)
    recorded = VectorRecorder(gym.make_vec("MedSeg-v0", num_envs=num_envs, **options), folder)
    seconds = {True: float("inf"), False: float("inf")}
    for _ in range(4):  # the first round warms up, and the fastest one counts
        for is_recorded, envs in ((False, plain), (True, recorded)):
            envs.reset(seed=0)
            envs.action_space.seed(0)
            began = time.perf_counter()
            for _ in range(steps):
                envs.step(envs.action_space.sample())
            taken = time.perf_counter() - began
            seconds[is_recorded] = min(seconds[is_recorded], taken)
    recorded.close()
    plain.close()
    return {
        "backbone": backbone,
        "num_envs": num_envs,
        "plain_steps_per_second": steps * num_envs / seconds[False],
        "recorded_steps_per_second": steps * num_envs / seconds[True],
        "milliseconds_per_env_step": 1000 * (seconds[True] - seconds[False]) / steps / num_envs,
    }


# kills -------------------------------------------------------------------------------------------
@dataclass
class KillResult:
    """What became of killed writers.

    Args:
        kills: Writers killed.
        recorded: Episodes that they said they had finished.
        bystander: Episodes of the writer that went on.
        lost: Episodes missing or changed.
        lost_steps: Steps of unfinished episodes missing.
        while_opening: Kills before the writer was open.
        leftovers: Files in the end that are neither chunk nor format.json.
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
    said: dict[tuple[int, int], int] = {}  # (run, episode) -> steps

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
                        said[run, index] = max(taken, said.get((run, index), 0))
                elif message == "open":
                    opened.add(run)
        except (EOFError, OSError):
            pass  # dead; everything it has said is read

    opened: set[int] = set()
    bystander, bystander_end = start(0, 0.02)
    try:
        following = start(1, 0.0)
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
            _check(store, {key: n for key, n in said.items() if key[0] == run}, result)
        bystander_end.send("enough")
        while bystander.is_alive():
            listen(0, bystander_end)
            bystander.join(0.02)
        listen(0, bystander_end)
    finally:
        bystander.kill()
        bystander.join()
    TrajectoryWriter(folder).close()  # recovers the last one
    _check(TrajectoryStore(folder), said, result)
    result.kills = kills
    result.recorded = sum(1 for (run, i), n in said.items() if run and n == len(_nth(run, i).steps))
    result.bystander = sum(1 for run, _ in said if run == 0)
    kept = {path.suffix for path in folder.iterdir()} - {".parquet", ".json"}
    result.leftovers = [path.name for path in folder.iterdir() if path.suffix in kept]
    return result


def _nth(run: int, index: int) -> Trajectory:
    return made_up(f"case {index}", run, 64)


def _check(store: TrajectoryStore, said: dict[tuple[int, int], int], result: KillResult) -> None:
    begun: dict[EpisodeKey, Trajectory] = {one.key: one for one in store.episodes(unfinished=True)}
    for (run, index), taken in said.items():
        expected = _nth(run, index)
        if taken < len(expected.steps):
            found = store.episode(expected.key) if expected.key in store else None
            found = found or begun.get(expected.key)
            kept = found.steps if found else ()
            result.lost_steps += taken - sum(
                a == b for a, b in zip(kept[:taken], expected.steps[:taken], strict=False)
            )
        else:
            found = store.episode(expected.key) if expected.key in store else None
            if found is None or (found.facts, found.steps) != (expected.facts, expected.steps):
                result.lost.append(f"run {run}, episode {index}")


# program -----------------------------------------------------------------------------------------
def main(
    kills: Annotated[int, typer.Option(help="Writers to kill.")] = 50,
    episodes: Annotated[int, typer.Option(help="Made-up episodes to write and read.")] = 2000,
    backbone: Annotated[str, typer.Option(help="For the recorder's cost.")] = "ellipse",
    num_envs: Annotated[int, typer.Option(help="Slots of the vector environment.")] = 16,
    steps: Annotated[int, typer.Option(help="Vector steps timed.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the moments of the kills.")] = 0,
    out: Annotated[Path, typer.Option(help="JSON file of the results.")] = Path(
        "out/trajectory_store.json"
    ),
) -> None:
    """Measure, kill, check, print the tables and write the JSON."""
    from agents.machine import describe_machine

    console = Console()
    console = console if console.is_terminal else Console(width=150)
    results: dict[str, Any] = {"machine": describe_machine()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = results["store"] = [
            time_store(folder / f"fsync {fsync}", episodes // 10 if fsync else episodes, fsync)
            for fsync in (False, True)
        ]
        table = Table(title=f"made-up episodes, {SIDE} x {SIDE}, one writer")
        for header in ("fsync", "episodes", "steps", "written/s", "read/s", "bytes/episode"):
            table.add_column(header, justify="right")
        for row in rows:
            speeds = [f"{row[k]:.0f}" for k in list(row)[3:]]
            table.add_row(str(row["fsync"]), str(row["episodes"]), str(row["steps"]), *speeds)
        console.print(table)
        row = results["recorder"] = time_recorder(folder / "recorder", backbone, num_envs, steps)
        console.print(
            f"{num_envs} slots, {backbone}, phantoms, random actions: "
            f"{row['plain_steps_per_second']:.0f} env-steps/s, recorded "
            f"{row['recorded_steps_per_second']:.0f}: "
            f"{row['milliseconds_per_env_step']:.3f} ms per env-step"
        )
        with console.status(f"killing {kills} writers"):
            killed = kill_writers(folder / "kills", kills, seed)
        results["kills"] = vars(killed)
    console.print(
        f"{killed.kills} writers killed ({killed.while_opening} of them while opening the store): "
        f"{killed.recorded} finished episodes recorded by them and {killed.bystander} beside them, "
        f"{len(killed.lost)} lost, {killed.lost_steps} steps of running ones lost, "
        f"{len(killed.leftovers)} stray files"
    )
    console.print(f"Measured on: {results['machine']}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=1))
    if killed.lost or killed.lost_steps:
        raise typer.Exit(1)


if __name__ == "__main__":
    from medseg_gym.cli import run

    run(main)
