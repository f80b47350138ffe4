"""A run of any trainer, on a user's own cases, is killed and goes on by `--resume` alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from medseg_agents.runs.log import read_progress

from medseg_gym.errors import MedSegError

pytestmark = pytest.mark.slow

CASES, REWARD = "./holding.py:Squares", "./holding.py:final_iou"
PLAYED = ["--cases", CASES, "--reward", REWARD, "--backbone", "ellipse", "--device", "cpu"]
ARRAYS = [*PLAYED, "--steps", "64", "--num-envs", "4", "--rollout", "8", "--minibatch", "32",
          "--epochs", "1", "--eval-every", "0", "--test-cases", "2", "--pool", "4",
          "--checkpoint-every", "32", "--image-size", "32", "--width", "4"]  # fmt: skip
DAGGER = [word for word in ARRAYS if word not in ("--epochs", "1")]
CHAT = [*PLAYED, "--model", "caller", "--iterations", "2", "--max-steps", "2",
        "--max-completion-length", "24", "--micro-batch", "4", "--eval-every", "1",
        "--eval-cases", "2", "--checkpoint-every", "1"]  # fmt: skip
ROWS = ["--model", "caller", "--steps", "3", "--batch-size", "2", "--warmup", "0", "--schedule",
        "constant", "--save-every", "1", "--log-every", "1", "--device", "cpu", "--play-cases",
        CASES, "--play-count", "2", "--play-backbone", "ellipse"]  # fmt: skip
TRAINERS = {
    "dagger": ([*DAGGER, "--updates", "1"], 32, 96),
    "sb3-ppo": (ARRAYS, 32, 96),
    "rllib-ppo": ([*ARRAYS, "--env-runners", "0"], 32, 96),
    "grpo": ([*CHAT, "--groups", "2", "--num-generations", "2"], 1, 3),
    "chat-ppo": ([*CHAT, "--groups", "4", "--minibatches", "1", "--epochs", "1"], 1, 3),
    "sft": ([*ROWS, "--trajectories", "episodes.parquet"], 2, 5),
    "dpo": ([*ROWS, "--pairs", "pairs.parquet"], 2, 5),
    "best-of-n": (
        [*PLAYED, "--model", "caller", "--limit", "2", "--num-generations", "2", "--iterations",
         "2", "--max-steps", "3", "--max-completion-length", "24", "--steps", "1", "--num-envs",
         "2"], 1, 3,
    ),
}  # fmt: skip
"""Arguments, how far the run is extended, and its last step then."""

HOLDING = '''
import os, time
from pathlib import Path
from cases import Squares as _Squares
from rewarding import final_iou as _final_iou

HERE = Path(__file__).parent
KEPT = ("checkpoints/step-?????????", "checkpoints/checkpoint-*/whole", "iteration-001/sft/model")

def hold():
    """Wait to be killed, once something of the run is kept."""
    if (HERE / "hold").exists() and any(any((HERE / "run").glob(kept)) for kept in KEPT):
        (HERE / "held").touch()
        time.sleep(600)

class Squares(_Squares):
    def __getitem__(self, index):
        hold()
        return super().__getitem__(index)

def final_iou(episode):
    hold()
    return _final_iou(episode)
'''


@pytest.fixture(params=TRAINERS)
def trainer(request, own_folder, medseg, caller):
    """Name, arguments, extension and last step of a trainer, in a folder that has its start."""
    if request.param != "dagger":
        pytest.importorskip("stable_baselines3" if request.param == "sb3-ppo" else "ray")
    Path("holding.py").write_text(HOLDING)
    Path("caller").symlink_to(caller)
    if request.param in ("sft", "dpo"):
        for annotator in ("bright:Bright", "centre-box"):
            medseg("trajectories", "generate", "--annotator", annotator, "--seed",
                   len(annotator), "--cases",
                   "cases:Squares", "--backbone", "ellipse", "--max-steps", "3", "--out",
                   "store")  # fmt: skip
        view = ("--image-size", "64", "--texts", "terse", "--cases", "./cases.py:Squares")
        medseg("trajectories", "export", "store", "episodes.parquet", *view)
        medseg("trajectories", "pairs", "store", "pairs.parquet", "--margin", "0.001", *view)
    return request.param, *TRAINERS[request.param]


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start `medseg train` in the current folder, in a group of processes of its own."""
    command = [sys.executable, "-m", "medseg_gym.cli.main", "train", *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
                            start_new_session=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)  # fmt: skip


def train(*arguments: object) -> str:
    """Run `medseg train`; returns what it printed."""
    process = start(*arguments)
    printed, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return printed


def steps(name: str) -> list[int]:
    """Steps of the log's rows that tell of learning."""
    what = {"sft": "loss", "dpo": "loss"}.get(name, "return")
    return [row["step"] for row in read_progress(Path("run")) if what in row]


def test_a_run_that_is_killed_goes_on_and_further(trainer, medseg) -> None:
    name, arguments, extension, last = trainer
    Path("hold").touch()
    process = start(name, *arguments, "--out", "run")
    try:
        while not Path("held").exists():
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert not Path("run/model").exists()
    Path("hold").unlink()

    with pytest.raises(MedSegError, match=r"--seed 0 \(not 4\)\. Resume it without --seed"):
        medseg("train", name, "--out", "run", "--resume", "--seed", "4")
    train(name, "--out", "run", "--resume")
    first = steps(name)
    assert first == sorted(set(first))
    assert last - extension <= first[-1] < last  # RLlib plays a few steps more than it is asked
    train(name, "--out", "run", "--resume", "--extend", extension)
    longer = steps(name)
    assert longer[: len(first)] == first and last <= longer[-1] < last + extension
    assert longer == sorted(set(longer))
    kind = {"dagger": "sb3:run", "sb3-ppo": "sb3:run", "rllib-ppo": "rllib:run"}.get(
        name, "llm:run/model"
    )
    medseg("eval", "--policy", kind, "--cases", "cases:Squares", "--limit", "1", "--backbone",
           "ellipse", "--max-steps", "2", "--out", "e")  # fmt: skip
