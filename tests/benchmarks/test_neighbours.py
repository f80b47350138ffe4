"""The benchmark of neighbours starts them, and the command line asks threads to wait passively."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks.throughput.neighbours import NEIGHBOURS, POLICIES, measure
from medseg_gym.thread_waiting import VARIABLE, wait_passively


@pytest.mark.slow
def test_every_neighbour_and_policy_has_a_rate(tmp_path):
    app = Typer()
    app.command()(measure)
    arguments = "--envs 2 --threads 1 --seconds 0.2 --repeats 1"
    result = CliRunner().invoke(app, [*arguments.split(), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert {(row["neighbour"], row["policy"]) for row in rows} == {
        (neighbour, policy) for neighbour in NEIGHBOURS for policy in POLICIES
    }
    assert all(row["rate"] > 0 for row in rows)
    assert max(row["of_best_alone"] for row in rows if row["neighbour"] == "alone") == 1


@pytest.mark.parametrize(("given", "wanted"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_the_command_line_sets_the_policy_before_torch_and_keeps_the_users(given, wanted):
    environment = {k: v for k, v in os.environ.items() if k != VARIABLE}
    environment |= {VARIABLE: given} if given else {}
    program = (
        "import os, sys\n"
        "from medseg_gym.cli import main\n"
        "main.add_installed_commands = lambda app: None\n"
        "main.app = lambda: print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])\n"
        "main.main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["False", wanted]


def test_the_policy_of_a_given_environment():
    environment = {}
    wait_passively(environment)
    wait_passively(environment)
    assert environment == {VARIABLE: "PASSIVE"}
