"""This checkout beside an earlier one: `pocket`'s steps and encodings a second on a CPU.

    git worktree add --detach ../earlier b5b4007
    python -m benchmarks.throughput.versions --earlier ../earlier --envs 1,16,64

Each player is a process of its own with the same threads and wait policy; it stays, and the players
take short turns at the same work, so that the ratio of their medians holds on a noisy machine.
"cached" and "fresh" are those of `benchmarks.throughput.step_speed`; "encode" encodes distinct
images and nothing else. With `--clock cpu` a second is one of the player's own CPU time, which
other programs stretch less than the wall's; of several threads it counts all. The player uses what
both checkouts have: public names alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from medseg_agents.runs.machine import describe_machine

from benchmarks.shared.results import show_and_keep
from benchmarks.shared.workers import read_line
from medseg_gym.display.terminal import Table
from medseg_gym.errors import MedSegError
from medseg_gym.thread_waiting import WAITS, environment_waiting

HERE = Path(__file__).parents[2]
PLAYER = """
import json, sys, time
import gymnasium as gym, numpy as np
import medseg_gym
from medseg_gym import backbones
from medseg_gym.backbones import embedding_cache
from medseg_gym.cases import CaseList, load_cases

source = load_cases("samples", "test")
cases = CaseList([source[i * len(source) // 8] for i in range(8)])
backbone = backbones.load(sys.argv[1], None, "cpu")
made = {}
now = time.process_time if sys.argv[2] == "cpu" else time.perf_counter


def steps(slots, fresh, seconds):
    if slots not in made:
        envs = gym.make_vec(
            "MedSeg-v0", num_envs=slots, cases=cases, backbone=backbone, max_steps=5,
            autoreset_mode="same_step",
        )
        for case in cases:
            envs.reset(options={"case": [case.key] * slots})
        envs.reset(seed=0)
        made[slots] = envs
    envs, rng, turns, began = made[slots], np.random.default_rng(0), 0, now()
    while now() - began < seconds or turns % 5:
        actions = np.zeros((slots, 5), np.int64)
        actions[:, 0] = 0 if turns % 5 == 0 else 1
        actions[:, 1:3] = rng.integers(100, 450, (slots, 2))
        actions[:, 3:] = rng.integers(550, 900, (slots, 2))
        if fresh and turns % 5 == 4:
            embedding_cache(backbone).clear()
        envs.step(actions)
        turns += 1
    return turns * slots / (now() - began)


def encodings(seconds):
    count, began = 0, now()
    while now() - began < seconds:
        backbone.encode([case.image for case in cases])
        count += len(cases)
    return count / (now() - began)


print(medseg_gym.__file__, flush=True)
for line in sys.stdin:
    work, slots, seconds = json.loads(line)
    rate = encodings(seconds) if work == "encode" else steps(slots, work == "fresh", seconds)
    print(json.dumps(rate), flush=True)
"""


def measure(
    earlier: Annotated[Path, typer.Option(help="Folder of the other checkout.")],
    names: Annotated[
        str, typer.Option("--backbones", help="Specs to play here, semicolon between.")
    ] = "pocket",
    envs: Annotated[str, typer.Option(help="Numbers of slots, comma between.")] = "1,16,64",
    works: Annotated[str, typer.Option(help="Of cached, fresh and encode.")] = (
        "cached,fresh,encode"
    ),
    threads: Annotated[int, typer.Option(help="torch threads of each player.")] = 2,
    wait: Annotated[
        str, typer.Option(help="How OpenMP's threads wait: active, passive, brief.")
    ] = "brief",
    clock: Annotated[
        str, typer.Option(help="Seconds of the wall, or of the player's own CPU time: wall, cpu.")
    ] = "wall",
    seconds: Annotated[float, typer.Option(help="Of one turn, at least.")] = 0.7,
    turns: Annotated[int, typer.Option(help="Turns of each player at each work.")] = 15,
    out: Annotated[Path, typer.Option(help="Folder for results.json.")] = Path("out/versions"),
) -> None:
    """Time both checkouts in turns, print medians and ratios."""
    if not (earlier / "medseg_gym").is_dir():
        raise MedSegError(f"{earlier} is no checkout: it has no folder medseg_gym")
    if clock not in ("wall", "cpu"):
        raise MedSegError(f"--clock must be wall or cpu, got {clock!r}")
    if wait not in WAITS:
        raise MedSegError(f"--wait must be one of {', '.join(WAITS)}, got {wait!r}")
    environment = {**environment_waiting(wait), "OMP_NUM_THREADS": str(threads)}
    specs = names.split(";")
    wanted = [("earlier", earlier.resolve(), "pocket"), *((spec, HERE, spec) for spec in specs)]
    load = os.getloadavg()[0]
    players = {}
    try:
        for label, folder, spec in wanted:
            players[label] = _start(folder, spec, clock, environment)
        rows = [
            row
            for work in works.split(",")
            for slots in ([0] if work == "encode" else map(int, envs.split(",")))
            for row in _compare(players, work, slots, seconds, turns)
        ]
    finally:
        for player in players.values():
            player.kill()
            player.communicate()
    table = Table(
        title=f"{turns} turns of {seconds:g} s ({clock}), {threads} threads, waiting: {wait}",
        keys=3,
    )
    headers = ("a second", "lowest-highest", "x earlier", "quartiles of the pairs")
    for header in ("work", "envs", "backbone", *headers):
        table.add_column(header, justify="right" if header in headers else "left")
    for row in rows:
        low, high = row["quartiles"]
        table.add_row(
            row["work"], str(row["envs"] or ""), row["backbone"], f"{row['rate']:.0f}",
            f"{row['low']:.0f}-{row['high']:.0f}", f"{row['ratio']:.2f}", f"{low:.2f}-{high:.2f}",
        )  # fmt: skip
    machine = f"{describe_machine('cpu')}, load {load:.1f} before"
    show_and_keep(table, machine, out, threads=threads, wait=wait, clock=clock, rows=rows)


def _compare(
    players: dict[str, subprocess.Popen[str]], work: str, slots: int, seconds: float, turns: int
) -> list[dict[str, Any]]:
    """Let all players do a work in turns, the first of them with nothing counted."""
    rates: dict[str, list[float]] = {label: [] for label in players}
    order = list(players)
    for turn in range(turns + 1):
        for label in order[:: 1 if turn % 2 else -1]:
            rate = _ask(players[label], [work, slots, seconds])
            if turn:
                rates[label].append(rate)
    before = np.array(rates["earlier"])
    rows = []
    for label, values in rates.items():
        pairs = np.array(values) / before
        rows.append(
            {
                "work": work,
                "envs": slots,
                "backbone": label,
                "rate": float(np.median(values)),
                "low": min(values),
                "high": max(values),
                "ratio": float(np.median(values) / np.median(before)),
                "quartiles": np.percentile(pairs, [25, 75]).tolist(),
            }
        )
    return rows


def _start(
    folder: Path, spec: str, clock: str, environment: dict[str, str]
) -> subprocess.Popen[str]:
    """Start a player and wait until it is ready.

    Raises:
        MedSegError: It has imported another checkout than its own.
    """
    path = os.pathsep.join([str(folder), str(folder / "agents")])
    player = subprocess.Popen(
        [sys.executable, "-c", PLAYER, spec, clock],
        env={**environment, "PYTHONPATH": path},
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    imported = Path(read_line(player))
    if folder not in imported.parents:
        player.kill()
        raise MedSegError(f"the player of {folder} imported {imported}")
    return player


def _ask(player: subprocess.Popen[str], work: list[Any]) -> float:
    assert player.stdin is not None
    player.stdin.write(json.dumps(work) + "\n")
    player.stdin.flush()
    return float(read_line(player))


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(measure)
