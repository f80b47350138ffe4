"""The benchmark of neighbours starts them, and the command line lets threads sleep soon."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks.throughput.neighbours import NEIGHBOURS, measure
from medseg_gym.thread_waiting import SPINS, VARIABLE, WAITS, environment_waiting, wait_briefly


@pytest.mark.slow
def test_every_neighbour_and_way_to_wait_has_a_rate(tmp_path):
    app = Typer()
    app.command()(measure)
    arguments = "--envs 2 --threads 1 --seconds 0.2 --repeats 1"
    result = CliRunner().invoke(app, [*arguments.split(), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert {(row["neighbour"], row["wait"]) for row in rows} == {
        (neighbour, wait) for neighbour in NEIGHBOURS for wait in WAITS
    }
    assert all(row["rate"] > 0 for row in rows)
    assert max(row["of_best_alone"] for row in rows if row["neighbour"] == "alone") == 1


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, WAITS["brief"]),
        ({VARIABLE: "ACTIVE"}, {VARIABLE: "ACTIVE"}),
        ({SPINS: "7"}, {SPINS: "7"}),
        (WAITS["passive"], WAITS["passive"]),
    ],
)
def test_the_command_line_says_how_to_wait_before_torch_and_keeps_the_users(given, wanted):
    environment = {k: v for k, v in os.environ.items() if k not in (VARIABLE, SPINS)}
    program = (
        "import json, os, sys\n"
        "from medseg_gym.cli import main\n"
        "main.add_installed_commands = lambda app: None\n"
        f"names = {(VARIABLE, SPINS)!r}\n"
        "said = lambda: {name: os.environ[name] for name in names if name in os.environ}\n"
        "main.app = lambda: print(json.dumps(['torch' in sys.modules, said()]))\n"
        "main.main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | given,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(run.stdout) == [False, wanted]


def test_ways_to_wait_replace_each_other():
    environment = {"HOME": "/root"}
    wait_briefly(environment)
    wait_briefly(environment)
    assert environment == {"HOME": "/root"} | WAITS["brief"]
    for wait, variables in WAITS.items():
        environment = environment_waiting(wait, environment)
        assert environment == {"HOME": "/root"} | variables
