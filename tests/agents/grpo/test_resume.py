"""Runs that are killed go on as if nothing had happened, and runs that ended go on further."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from medseg_agents.arrays.optimisers import rate_over_run
from medseg_agents.grpo import train
from medseg_agents.grpo.settings import GRPORun
from medseg_agents.runs.log import read_progress
from rich.console import Console
from safetensors.torch import load_file

from medseg_gym.errors import MedSegError

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

ROOT = Path(__file__).parents[3]
SIZES = {
    "cases": "phantoms:fundus",
    "backbone": "ellipse",
    "max_steps": 2,
    "max_completion_length": 24,
    "lr": 1e-3,
    "iterations": 2,
    "eval_every": 0,
    "checkpoint_every": 1,
    "keep": 9,
    "groups": 2,
    "num_generations": 2,
}
QUIET = Console(quiet=True)


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_beyond_the_end_of_its_schedule_the_rate_stays(schedule):
    rate = rate_over_run(schedule, 10, 2, 0.1)
    assert rate(9) > rate(10) == pytest.approx(0.1) == rate(25)
    assert rate_over_run("constant", 10, 2, 0.1)(25) == 1


@pytest.mark.slow
def test_a_run_killed_while_it_learns_ends_with_the_same_weights_and_goes_on_further(
    caller, ray_cluster, tmp_path
):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    config = GRPORun(model=str(caller), **SIZES)
    whole = train.train_chat(config, tmp_path / "whole", console=QUIET)
    wanted = weights(whole.model)

    killed = tmp_path / "killed"
    options = [
        word
        for name, value in {"model": caller, **SIZES, "out": killed}.items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    paths = [str(ROOT), str(ROOT / "agents")]
    process = subprocess.Popen(
        [sys.executable, "-m", "medseg_gym.cli.main", "train", "grpo", *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    first = killed / "checkpoints" / "step-000000001"
    for _ in range(2400):
        if first.is_dir() or process.poll() is not None:
            break
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)  # in the middle of the second iteration
    process.wait()
    assert first.is_dir() and not (killed / "model").exists()
    run = train.train_chat(config, killed, resume=True, console=QUIET)
    assert same(weights(run.model), wanted)

    with pytest.raises(MedSegError, match="--extend 3"):
        train.train_chat(replace(config, iterations=5), killed, resume=True, console=QUIET)
    for out in (whole.path, killed):
        longer = replace(config, extend=1)
        run = train.train_chat(longer, out, resume=True, console=QUIET)
        rows = {row["step"]: row for row in read_progress(out) if "return" in row}
        assert sorted(rows) == [1, 2, 3]
    assert same(weights(run.model), weights(whole.model))
    assert not same(weights(run.model), wanted)
    torch.set_num_threads(threads)


def test_a_new_run_has_nothing_to_extend(caller, tmp_path):
    config = GRPORun(model=str(caller), **SIZES, extend=1)
    with pytest.raises(MedSegError, match="--resume"):
        train.train_chat(config, tmp_path / "run", console=QUIET)
