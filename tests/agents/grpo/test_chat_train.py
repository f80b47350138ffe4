"""Runs of GRPO and PPO over turns: folder, resume, command."""

import json

import pytest
import torch
import typer
from medseg_agents import policies
from medseg_agents.commands.entry import add_commands
from medseg_agents.grpo import train
from medseg_agents.grpo.settings import ChatPPORun, GRPORun
from medseg_agents.llm.checkpoint import read_view
from medseg_agents.runs.log import read_progress
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file
from typer.testing import CliRunner

from medseg_gym.errors import MedSegError
from medseg_gym.policy import make_envs, play_cases

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

SIZES = {
    "cases": "phantoms:fundus",
    "backbone": "ellipse",
    "max_steps": 2,
    "max_completion_length": 24,
    "lr": 1e-3,
    "iterations": 3,
    "eval_every": 2,
    "eval_cases": 3,
    "checkpoint_every": 1,
}
GROUPS = {"groups": 2, "num_generations": 2}
QUIET = Console(quiet=True)


def weights(folder):
    return load_file(next(folder.glob("*.safetensors")))


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_was_left_alone(
    caller, ray_cluster, tmp_path, monkeypatch, one_thread
):
    config = GRPORun(model=str(caller), **SIZES, **GROUPS)
    whole = train.train_chat(config, tmp_path / "whole", console=QUIET)
    assert sorted(p.name for p in (whole.path / "checkpoints").iterdir()) == [
        "step-000000002",
        "step-000000003",
    ]
    real = train._validate

    def killed(algo, keys, out, iteration):
        if iteration == 2:
            raise KeyboardInterrupt  # before the second iteration was kept
        return real(algo, keys, out, iteration)

    monkeypatch.setattr(train, "_validate", killed)
    with pytest.raises(KeyboardInterrupt):
        train.train_chat(config, tmp_path / "killed", console=QUIET)
    monkeypatch.setattr(train, "_validate", real)
    with pytest.raises(MedSegError, match="--resume"):
        train.train_chat(config, tmp_path / "killed", console=QUIET)
    run = train.train_chat(config, tmp_path / "killed", resume=True, console=QUIET)
    resumed, wanted = weights(run.path / "model"), weights(whole.path / "model")
    assert resumed.keys() == wanted.keys()
    assert all(torch.equal(resumed[name], wanted[name]) for name in wanted)
    steps = [row["step"] for row in read_progress(run.path) if "return" in row]
    assert steps == [1, 2, 3]
    other = GRPORun(model=str(caller), **{**SIZES, "lr": 1e-4}, **GROUPS)
    with pytest.raises(MedSegError, match=r"--lr 0.001 \(not 0.0001\)"):
        train.train_chat(other, tmp_path / "killed", resume=True, console=QUIET)


def test_a_run_leaves_a_model_that_plays(caller, ray_cluster, tmp_path, one_thread):
    run = train.train_chat(
        ChatPPORun(model=str(caller), groups=4, **SIZES), tmp_path / "run", console=QUIET
    )
    rows = read_progress(run.path)
    last = {key: value for row in rows for key, value in row.items()}
    for name in (
        *("return", "dice", "turns", "valid_rate", "stopped", "return_regret", "val/return"),
        *("tokens_per_second", "clip_ratio/low", "approx_kl", "value_loss"),
        "sampling/max_ratio_deviation",
    ):
        assert name in last, name
    shares = [last[f"share/{part}"] for part in ("generation", "segmentation", "update")]
    assert sum(shares) == pytest.approx(1) and min(shares) > 0
    assert list((run.path / "tensorboard").iterdir())
    with Image.open(run.path / "samples" / "iteration-00003.png") as image:
        assert image.width > 400
    view, policy, env_id = read_view(run.path / "model")
    assert view["image_size"] == 64 and policy["max_new_tokens"] == 24
    assert env_id == "MedSegChat-v0"
    policy_spec = policies.make(f"llm:{run.path / 'model'}")
    envs = make_envs(
        2, "MedSegChat-v0", cases="phantoms:fundus", backbone="ellipse", **policy_spec.view
    )
    (batch,) = play_cases(envs, policy_spec.build(envs), envs.source.keys[:2])
    assert all(one.answers for one in batch)


def test_the_command_trains_and_names_what_is_wrong(caller, ray_cluster, tmp_path, one_thread):
    app = typer.Typer()
    add_commands(app)

    def call(*words):
        return CliRunner().invoke(app, ["train", *words])

    missing = call("grpo", "--model", str(tmp_path / "no"), "--out", str(tmp_path / "run"))
    assert isinstance(missing.exception, MedSegError) and "no such folder" in str(missing.exception)
    assert not (tmp_path / "run").exists()
    options = [
        word
        for name, value in {**SIZES, **GROUPS, "iterations": 1, "lora_rank": 2}.items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    done = call("grpo", "--model", str(caller), *options, "--out", str(tmp_path / "run"))
    assert done.exit_code == 0, done.output
    assert "play it as" in done.stdout
    assert json.loads((tmp_path / "run" / "config.json").read_text())["lora_rank"] == 2
    assert (tmp_path / "run" / "model" / "adapter_config.json").is_file()


def test_a_run_needs_a_checkpoint(tmp_path):
    with pytest.raises(MedSegError, match="--model"):
        train.train_chat(GRPORun(), tmp_path / "run")
