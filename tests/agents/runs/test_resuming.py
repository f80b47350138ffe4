"""Every trainer goes on with nothing but the run's folder, and refuses what contradicts it."""

from __future__ import annotations

import pytest
from medseg_agents.arrays.dagger.config import DaggerConfig
from medseg_agents.arrays.rllib.config import RLlibPPOConfig
from medseg_agents.arrays.sb3.config import SB3PPOConfig
from medseg_agents.best_of_n.config import BestOfNRun
from medseg_agents.commands.trainers import train_app
from medseg_agents.dpo.config import DpoConfig
from medseg_agents.grpo.settings import ChatPPORun, GRPORun
from medseg_agents.runs.folder import RunFolder
from medseg_agents.runs.resuming import free_settings
from medseg_agents.sft.config import SftConfig
from typer.main import get_command
from typer.testing import CliRunner

from medseg_gym.cli.main import add_installed_commands, app
from medseg_gym.errors import MedSegError
from medseg_gym.options import describe_fields

add_installed_commands(app)
TRAINERS = {
    "dagger": DaggerConfig(seed=3, width=5),
    "sb3-ppo": SB3PPOConfig(seed=3, width=5),
    "rllib-ppo": RLlibPPOConfig(seed=3, width=5),
    "grpo": GRPORun(seed=3, model="start"),
    "chat-ppo": ChatPPORun(seed=3, model="start"),
    "sft": SftConfig(seed=3, trajectories=("a.parquet",)),
    "dpo": DpoConfig(seed=3, model="start", pairs=("a.parquet",)),
    "best-of-n": BestOfNRun(seed=3, model="start"),
}
trainers = pytest.mark.parametrize("name", TRAINERS)


def call(name, out, *arguments):
    result = CliRunner().invoke(app, ["train", name, "--out", str(out), *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_all_trainers_are_here() -> None:
    assert set(get_command(train_app).commands) == set(TRAINERS)


@trainers
def test_a_run_is_resumed_with_its_own_settings(name, tmp_path) -> None:
    config = TRAINERS[name]
    RunFolder(tmp_path).write_config(config)
    assert call(name, tmp_path, "--resume", "--print-config") == config.to_yaml()
    longer = call(name, tmp_path, "--resume", "--extend", "7", "--print-config")
    assert "extend: 7" in longer and longer.replace("extend: 7", "extend: 0") == config.to_yaml()


@trainers
def test_settings_that_contradict_the_run_are_named(name, tmp_path) -> None:
    RunFolder(tmp_path).write_config(TRAINERS[name])
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(MedSegError, match=r"--seed 3 \(not 4\)\. Resume it without --seed"):
        call(name, tmp_path, "--resume", "--seed", "4")
    assert (tmp_path / "config.json").read_bytes() == before


@trainers
def test_there_must_be_a_run(name, tmp_path) -> None:
    with pytest.raises(MedSegError, match="holds no run to resume"):
        call(name, tmp_path / "none", "--resume")
    other = "sft" if name != "sft" else "dpo"
    RunFolder(tmp_path).write_config(TRAINERS[other])
    with pytest.raises(MedSegError, match=f"settings of {type(TRAINERS[other]).__name__}, not"):
        call(name, tmp_path, "--resume")


@trainers
def test_a_new_run_has_nothing_to_extend(name, tmp_path) -> None:
    given = {k: v for k, v in vars(TRAINERS[name]).items() if k in ("model", "pairs")}
    given |= {"trajectories": "a.parquet"} if name == "sft" else {}
    words = [f"--{k}={v if isinstance(v, str) else v[0]}" for k, v in given.items()]
    with pytest.raises(MedSegError, match=r"--extend goes on .* give it with --resume; .* larger"):
        call(name, tmp_path / "new", *words, "--extend", "2")
    assert not (tmp_path / "new").exists()


@trainers
def test_what_may_differ_exists_and_is_no_matter_of_learning(name) -> None:
    kind = type(TRAINERS[name])
    free, known = free_settings(kind), set(describe_fields(kind))
    assert {"extend", "extend_schedule", "log_to", "device"} <= free
    assert free <= known
    assert not free & {"seed", "lr", "learning_rate", "steps", "iterations", "epochs", "cases"}


def test_a_rate_that_has_fallen_to_nothing_is_not_held(tmp_path) -> None:
    RunFolder(tmp_path).write_config(TRAINERS["dpo"])  # linear, to 0
    with pytest.raises(MedSegError, match=r"brought the learning rate to 0.*stretch"):
        call("dpo", tmp_path, "--resume", "--extend", "5")
