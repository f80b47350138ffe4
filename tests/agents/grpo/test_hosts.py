"""GRPO over two hosts, of which one is lost."""

import math
import subprocess
import sys
import time

import pytest
import torch
from medseg_agents.runs.folder import RunFolder
from medseg_agents.runs.log import read_progress
from safetensors.torch import load_file

from ..two_hosts import two_hosts, why_not

SIZES = {
    "cases": "phantoms:fundus",
    "backbone": "ellipse",
    "max_steps": 2,
    "max_completion_length": 24,
    "lr": 1e-3,
    "iterations": 8,
    "eval_every": 0,
    "checkpoint_every": 1,
    "groups": 2,
    "num_generations": 2,
    "env_runners": 2,
}


def iterations(out):
    return [row for row in read_progress(out) if "return" in row] if out.exists() else []


def until(true, process, seconds):
    """Wait for something while a process runs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if true():
            return True
        time.sleep(0.2)
    return bool(true())


@pytest.mark.slow
def test_a_run_over_two_hosts_survives_the_loss_of_one(caller, tmp_path):
    reason = why_not()
    if reason:
        pytest.skip(reason)
    out, log = tmp_path / "run", tmp_path / "log"
    options = [
        word
        for name, value in {"model": caller, **SIZES, "out": out}.items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    with two_hosts() as hosts, log.open("wb") as file:
        run = hosts.command(
            0,
            *(sys.executable, "-m", "medseg_gym.cli.main", "train", "grpo", *options),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        assert until(lambda: len(iterations(out)) >= 2, run, 180), log.read_text()[-3000:]
        for number in (0, 1):  # one core each, so a runner each
            runners = [one for one in hosts.processes(number).values() if "ChatEnvRunner" in one]
            assert len(runners) == 1, hosts.processes(number)
        hosts.lose(1)
        until(lambda: False, run, 180)
        assert run.poll() == 0, log.read_text()[-3000:]
    rows = iterations(out)
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert all(math.isfinite(row["return"]) for row in rows)
    assert max(row["sampling/max_ratio_deviation"] for row in rows) < 1e-3
    assert RunFolder(out).newest()[0] == 8
    before, after = (load_file(one / "model.safetensors") for one in (caller, out / "model"))
    assert any(not torch.equal(before[name], after[name]) for name in before)
