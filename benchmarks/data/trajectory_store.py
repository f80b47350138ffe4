"""Cost of recording, and survival of a store whose writers are killed.

    python -m benchmarks.data.trajectory_store --kills 50

Three tables: synthetic episodes written and read (with and without fsync); environments with and
without a recorder; and writers killed with SIGKILL at random moments while another one goes on
writing to the same store. A killed writer says what it has recorded; all of it must be there
afterwards, bit for bit. The exit code is 1 if anything is lost.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.data.synthetic_episodes import SIDE, synthetic_episode, write_synthetic_episode
from benchmarks.data.writer_kills import kill_writers
from medseg_gym.display.terminal import Table, make_console
from medseg_gym.storage.atomic_write import atomic_write
from medseg_gym.trajectories.store.reader import TrajectoryStore
from medseg_gym.trajectories.store.writer import TrajectoryWriter


def time_store(folder: Path, episodes: int, fsync: bool) -> dict[str, Any]:
    """Write and read synthetic episodes."""
    made = [synthetic_episode(f"case {i}", 0) for i in range(episodes)]
    began = time.perf_counter()
    with TrajectoryWriter(folder, fsync=fsync) as writer:
        for episode in made:
            write_synthetic_episode(writer, episode)
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
    from medseg_gym.trajectories.recording.recorder import VectorRecorder

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


def main(
    kills: Annotated[int, typer.Option(help="Writers to kill.")] = 50,
    episodes: Annotated[int, typer.Option(help="Synthetic episodes to write and read.")] = 2000,
    backbone: Annotated[str, typer.Option(help="For the recorder's cost.")] = "ellipse",
    num_envs: Annotated[int, typer.Option(help="Slots of the vector environment.")] = 16,
    steps: Annotated[int, typer.Option(help="Vector steps timed.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the moments of the kills.")] = 0,
    out: Annotated[Path, typer.Option(help="JSON file of the results.")] = Path(
        "out/trajectory_store.json"
    ),
) -> None:
    """Measure, kill, check, print the tables and write the JSON."""
    from medseg_agents.runs.machine import describe_machine

    console = make_console()
    results: dict[str, Any] = {"machine": describe_machine()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = results["store"] = [
            time_store(folder / f"fsync {fsync}", episodes // 10 if fsync else episodes, fsync)
            for fsync in (False, True)
        ]
        table = Table(title=f"synthetic episodes, {SIDE} x {SIDE}, one writer")
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
    atomic_write(out, json.dumps(results, indent=1))
    if killed.lost or killed.lost_steps:
        raise typer.Exit(1)


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(main)
