"""The wait before the first step, and before `medseg --help` has printed.

    python -m benchmarks.throughput.first_step

Every start is a fresh process with warm file caches; the kinds of start take turns. "first step" is
what a newcomer types: import, `gym.make("MedSeg-v0")`, reset and one step, with the time at which
each was done, counted from the interpreter's start. Beside it: what the interpreter needs alone,
and with torch, which the first step cannot do without.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from medseg_agents.runs.machine import describe_machine

from benchmarks.shared.results import show_and_keep
from medseg_gym.display.terminal import Table

FIRST_STEP = """
import json, time
import medseg_gym
import gymnasium as gym
marks = [("import", time.time())]
env = gym.make("MedSeg-v0")
marks.append(("make", time.time()))
env.reset(seed=0)
marks.append(("reset", time.time()))
env.step([0, 300, 300, 700, 700])
marks.append(("step", time.time()))
print(json.dumps(marks))
"""
STARTS = {
    "interpreter": ["-c", "pass"],
    "import numpy": ["-c", "import numpy"],
    "import torch": ["-c", "import torch"],
    "first step": ["-c", FIRST_STEP],
    "medseg --help": ["-m", "medseg_gym.cli.main", "--help"],
}


def measure(
    turns: Annotated[int, typer.Option(help="Starts of each kind that count.")] = 9,
    out: Annotated[Path, typer.Option(help="Folder for results.json.")] = Path("out/first_step"),
) -> None:
    """Time starts in turns, print medians in seconds."""
    load = os.getloadavg()[0]
    spent: dict[str, list[float]] = {name: [] for name in STARTS}
    marks: dict[str, list[float]] = {}
    for turn in range(turns + 1):  # the first fills the file caches
        for name, words in STARTS.items():
            seconds, reached = _start(words)
            if not turn:
                continue
            spent[name].append(seconds)
            for mark, at in reached:
                marks.setdefault(mark, []).append(at)
    rows: list[dict[str, Any]] = [
        {"start": name, "median": float(np.median(values)), "low": min(values), "high": max(values)}
        for name, values in [
            *spent.items(),
            *((f"first step, {mark} done", values) for mark, values in marks.items()),
        ]
    ]
    table = Table(title=f"seconds from the interpreter's start, {turns} turns, warm file cache")
    for header in ("start", "median", "lowest-highest"):
        table.add_column(header, justify="left" if header == "start" else "right")
    for row in rows:
        table.add_row(row["start"], f"{row['median']:.2f}", f"{row['low']:.2f}-{row['high']:.2f}")
    machine = f"{describe_machine('cpu')}, load {load:.1f} before"
    show_and_keep(table, machine, out, rows=rows)


def _start(words: list[str]) -> tuple[float, list[tuple[str, float]]]:
    """Return the seconds that a process took, and when it reached its marks."""
    began = time.time()
    ended = subprocess.run(
        [sys.executable, *words], stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True
    )
    seconds = time.time() - began
    reached = json.loads(ended.stdout) if FIRST_STEP in words else []
    return seconds, [(mark, at - began) for mark, at in reached]


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(measure)
