"""Training with SB3: logs, checkpoints, kills, and the same actions everywhere."""

import base64
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import torch
from medseg_agents import policies
from medseg_agents.arrays.sb3 import SB3PPOConfig, make_model, make_vec_env, train_sb3
from medseg_agents.evaluation.evaluate import evaluate
from medseg_agents.runs.log import read_progress
from rich.console import Console
from stable_baselines3 import PPO

from medseg_gym.errors import MedSegError, PolicyError
from medseg_gym.policy import make_envs

QUIET = Console(quiet=True)


def arena(policy_spec, backbone="ellipse", **options):
    return make_envs(
        4, policy_spec.env_id, cases="phantoms:fundus", split="test", backbone=backbone,
        max_steps=3, **policy_spec.view, **options,
    )  # fmt: skip


def play(name, keys=8):
    policy_spec = policies.make(name)
    envs = arena(policy_spec)
    policy = policy_spec.build(envs)
    return evaluate(envs, policy, list(envs.source.keys[:keys]))


@pytest.fixture(scope="module")
def run(small_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("sb3") / "run"
    config = SB3PPOConfig(**small_run)
    train_sb3(config, path, console=QUIET)
    return path, config


def test_a_run_leaves_logs_and_checkpoints(run):
    path, _ = run
    rows = read_progress(path)
    steps = [row["step"] for row in rows]
    assert steps == sorted(steps) and steps[-1] == 128
    trained = [row for row in rows if "return" in row]
    wanted = {"return", "dice", "turns", "steps_per_second", "train/entropy", "train/value_loss"}
    assert wanted <= set(trained[0])
    assert sum("val/dice" in row for row in rows) == 2
    names = [p.name for p in sorted((path / "checkpoints").iterdir())]
    assert names == ["step-000000064", "step-000000128"]
    assert (path / "progress.csv").exists() and any((path / "tensorboard").iterdir())


def test_the_network_in_a_checkpoint_is_sb3s_own(run):
    path, config = run
    env = make_vec_env(config)
    model = make_model(config, env)
    model.set_parameters(str(path / "checkpoints" / "step-000000128" / "model.zip"))
    policy_spec = policies.make(f"sb3:{path}")
    policy = policy_spec.build(arena(policy_spec))
    env.seed(3)
    observation = env.reset()
    ours, theirs = policy.act(observation), model.predict(observation, deterministic=True)[0]
    assert np.array_equal(ours, theirs)


def test_the_same_checkpoint_gives_the_same_actions_in_a_fresh_process(run):
    path, _ = run
    names = [f"sb3:{path}", f"sb3:{path}?sampled=1"]
    program = (
        "import sys, json, torch; torch.set_num_threads(1)\n"
        "from medseg_agents import policies\n"
        "from medseg_agents.evaluation.evaluate import evaluate\n"
        "from medseg_gym.policy import make_envs\n"
        "for name in sys.argv[1:]:\n"
        "    c = policies.make(name)\n"
        "    e = make_envs(4, cases='phantoms:fundus', split='test', backbone='ellipse',\n"
        "                  max_steps=3, **c.view)\n"
        "    r = evaluate(e, c.build(e), list(e.source.keys[:8]))\n"
        "    print(json.dumps([[x.case, x.dice, x.tools] for x in r]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *names], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for name, line in zip(names, done.stdout.splitlines(), strict=True):
        here = [[r.case, list(r.dice), list(r.tools)] for r in play(name)]
        assert json.loads(line) == here


def test_sampled_actions_do_not_depend_on_the_number_of_slots(run):
    path, _ = run
    policy_spec = policies.make(f"sb3:{path}?sampled=1")
    result = []
    for slots in (1, 3):
        envs = make_envs(
            slots, cases="phantoms:fundus", split="test", backbone="ellipse", max_steps=3,
            **policy_spec.view,
        )  # fmt: skip
        records = evaluate(envs, policy_spec.build(envs), list(envs.source.keys[:6]), seed=5)
        result.append([(r.case, r.tools, r.dice) for r in records])
    assert result[0] == result[1]


@pytest.mark.slow
def test_a_killed_run_goes_on_to_its_end(small_run, tmp_path):
    options = {**small_run, "steps": 1920, "checkpoint_every": 64, "eval_every": 0}
    words = [f"--{k.replace('_', '-')}={v}" for k, v in options.items()]
    command = [
        sys.executable,
        "-m",
        "medseg_gym.cli.main",
        "train",
        "sb3-ppo",
        f"--out={tmp_path}/r",
    ]
    process = subprocess.Popen([*command, *words], stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while len(list((tmp_path / "r").glob("checkpoints/step-*"))) < 3:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = torch.Generator().get_state()
    train_sb3(SB3PPOConfig(**options), tmp_path / "r", resume=True, console=QUIET)
    assert torch.equal(before, torch.Generator().get_state())
    rows = read_progress(tmp_path / "r")
    steps = [row["step"] for row in rows]
    assert steps == list(range(64, 1921, 64))  # nothing lost, nothing twice
    rates = [row["train/learning_rate"] for row in rows]
    assert rates[-1] < rates[0] / 5


def test_episodes_of_validation_are_shown(run):
    path, _ = run
    sheets = sorted((path / "samples").iterdir())
    assert [sheet.name for sheet in sheets] == ["step-00064.png", "step-00128.png"]


def test_an_extended_run_holds_its_schedules_or_stretches_them(small_run, tmp_path):
    train_sb3(SB3PPOConfig(**small_run), tmp_path / "r", console=QUIET)
    for number, kind in enumerate(("hold", "stretch"), start=1):
        config = SB3PPOConfig(**small_run, extend=128 * number, extend_schedule=kind)
        train_sb3(config, tmp_path / "r", resume=True, console=QUIET)
    rows = [row for row in read_progress(tmp_path / "r") if "return" in row]
    assert [row["step"] for row in rows] == list(range(64, 385, 64))
    rates = [row["train/learning_rate"] for row in rows]  # of the update after so many steps
    assert rates == pytest.approx([1e-3 * (1 - 0.9 * p) for p in (0.5, 1, 1, 1, 5 / 6, 1)])


def test_resuming_goes_on_with_the_same_weights_and_optimizer(small_run, tmp_path):
    config = SB3PPOConfig(**small_run)
    train_sb3(config, tmp_path / "r", console=QUIET)
    newest = tmp_path / "r" / "checkpoints" / "step-000000128" / "model.zip"
    saved = PPO.load(newest).get_parameters()
    # Nothing is left to do: the run ends where it was, with the moments of its optimizer.
    train_sb3(config, tmp_path / "r", resume=True, console=QUIET)
    again = PPO.load(newest).get_parameters()
    for key, value in saved["policy"].items():
        assert torch.equal(value, again["policy"][key])
    steps = [s["step"] for s in again["policy.optimizer"]["state"].values()]
    assert steps and all(float(step) == 8 for step in steps)  # 2 updates of 2 epochs of 2


def test_a_damaged_checkpoint_is_named(run, tmp_path):
    path, _ = run
    with pytest.raises(PolicyError, match="neither a run nor a checkpoint"):
        policies.make(f"sb3:{tmp_path}")
    shutil.copytree(path, tmp_path / "copy")
    weights = tmp_path / "copy" / "checkpoints" / "step-000000128" / "network.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    policy_spec = policies.make(f"sb3:{tmp_path / 'copy'}")
    with pytest.raises(PolicyError, match="no network of this view"):
        policy_spec.build(arena(policy_spec))


def test_pickles_of_a_checkpoint_are_never_run(small_run, tmp_path):
    """A file as somebody else may have made it: with code where SB3 keeps its pickles."""
    config = SB3PPOConfig(**small_run)
    train_sb3(config, tmp_path / "r", console=QUIET)
    newest = tmp_path / "r" / "checkpoints" / "step-000000128" / "model.zip"
    mark = tmp_path / "run"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {mark}",)

    evil = pickle.dumps(Evil())
    with zipfile.ZipFile(newest) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    value = {":type:": "evil", ":serialized:": base64.b64encode(evil).decode()}
    parts["data"] = json.dumps({"policy_class": value, "lr_schedule": value}).encode()

    def write(parts):
        with zipfile.ZipFile(newest, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, content)

    write(parts)
    train_sb3(config, tmp_path / "r", resume=True, console=QUIET)
    write({**parts, "policy.pth": evil})
    with pytest.raises(MedSegError, match=r"model\.zip cannot be resumed from.*step-000000064"):
        train_sb3(config, tmp_path / "r", resume=True, console=QUIET)
    assert not mark.exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "text"])
def test_a_damaged_checkpoint_names_the_one_before(run, tmp_path, damage):
    path, config = run
    shutil.copytree(path, tmp_path / "r")
    newest = tmp_path / "r" / "checkpoints" / "step-000000128"
    model = newest / "model.zip"
    content = {"cut": model.read_bytes()[:-99], "empty": b"", "text": b"<html>", "gone": b""}
    model.write_bytes(content[damage])
    if damage == "gone":
        model.unlink()
    with pytest.raises(
        MedSegError, match=r"model\.zip cannot be resumed from.*before it is .*0064"
    ):
        train_sb3(config, tmp_path / "r", resume=True, console=QUIET)
    for name in ("network.safetensors", "network.json", "view.json"):
        whole = (newest / name).read_bytes()
        (newest / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(PolicyError, match=r"step-000000128.*before it is .*0064"):
            play(f"sb3:{tmp_path / 'r'}")
        (newest / name).write_bytes(whole)
    (tmp_path / "r" / "config.json").write_text('{"algorithm": "SB3')
    with pytest.raises(MedSegError, match=r"config\.json is damaged"):
        train_sb3(config, tmp_path / "r", resume=True, console=QUIET)
