"""Environment steps a second beside other busy processes, by threads and how they wait.

    python -m benchmarks.throughput.neighbours --envs 16

Each cell is a fresh process that plays `MedSeg-v0` with `pocket` (images encoded before): alone;
beside one process that only counts; or two such players at once, whose rates are added. Cells take
turns within a repetition, so that their ratios hold on a noisy machine.
"""

from __future__ import annotations

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
from medseg_gym.thread_waiting import WAITS, environment_waiting

NEIGHBOURS = ("alone", "one busy process", "two players")
_PLAY = """
import sys, torch
from benchmarks.throughput.step_speed import IMAGES, steps_per_second
from medseg_gym import backbones
from medseg_gym.cases import CaseList, load_cases
source = load_cases("samples", "test")
cases = CaseList([source[i * len(source) // IMAGES] for i in range(IMAGES)])
backbone = backbones.load("pocket", None, "cpu")
steps_per_second(backbone, cases, int(sys.argv[1]), 0.5, False)
print("ready", flush=True)
sys.stdin.readline()
print(steps_per_second(backbone, cases, int(sys.argv[1]), float(sys.argv[2]), False), flush=True)
"""


def measure(
    envs: Annotated[int, typer.Option(help="Slots of each player.")] = 16,
    threads: Annotated[str, typer.Option(help="torch threads of a player, comma between.")] = "1,2",
    seconds: Annotated[float, typer.Option(help="Of one cell.")] = 6.0,
    repeats: Annotated[int, typer.Option(help="Turns of each cell; medians count.")] = 3,
    out: Annotated[Path, typer.Option(help="Folder for results.json.")] = Path("out/neighbours"),
) -> None:
    """Time steps beside neighbours, print medians and their ratio to a player alone."""
    cells = [
        (neighbour, wait, int(count))
        for count in threads.split(",")
        for wait in WAITS
        for neighbour in NEIGHBOURS
    ]
    rates: dict[tuple[str, str, int], list[float]] = {cell: [] for cell in cells}
    load = os.getloadavg()[0]
    for _ in range(repeats):
        for cell in cells:
            rates[cell].append(play_beside(*cell, envs, seconds))
    medians = {cell: float(np.median(values)) for cell, values in rates.items()}
    best = max(medians["alone", wait, count] for _, wait, count in cells)
    rows: list[dict[str, Any]] = [
        {
            "neighbour": neighbour,
            "wait": wait,
            "threads": count,
            "rate": medians[neighbour, wait, count],
            "of_best_alone": medians[neighbour, wait, count] / best,
            "low": min(rates[neighbour, wait, count]),
            "high": max(rates[neighbour, wait, count]),
        }
        for neighbour, wait, count in cells
    ]
    table = Table(title=f"env-steps/s, pocket, {envs} envs, cached images", keys=3)
    headers = ("env-steps/s", "lowest-highest", "of the best alone")
    for header in ("neighbour", "threads wait", "threads", *headers):
        table.add_column(header, justify="right" if header in headers else "left")
    for row in rows:
        table.add_row(
            row["neighbour"], row["wait"], str(row["threads"]), f"{row['rate']:.0f}",
            f"{row['low']:.0f}-{row['high']:.0f}", f"{row['of_best_alone']:.2f}",
        )  # fmt: skip
    machine = f"{describe_machine('cpu')}, load {load:.1f} before"
    show_and_keep(table, machine, out, rows=rows)


def play_beside(neighbour: str, wait: str, threads: int, envs: int, seconds: float) -> float:
    """Return the steps a second of fresh players in one surrounding.

    Args:
        neighbour: Of `NEIGHBOURS`.
        wait: Of `medseg_gym.thread_waiting.WAITS`.
        threads: Of each player.
        envs: Slots of each.
        seconds: Of playing.
    """
    environment = {**environment_waiting(wait), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", _PLAY, str(envs), str(seconds)]
    players = [
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        for _ in range(2 if neighbour == "two players" else 1)
    ]
    busy = None
    try:
        for player in players:
            read_line(player)
        if neighbour == "one busy process":
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for player in players:
            assert player.stdin is not None
            player.stdin.write("go\n")
            player.stdin.flush()
        return sum(float(read_line(player)) for player in players)
    finally:
        if busy is not None:
            busy.kill()
            busy.wait()
        for player in players:
            player.kill()
            player.communicate()


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(measure)
