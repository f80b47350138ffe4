"""Runs on disk: settings, checkpoints that are whole, logs that go on."""

import csv
import json

import pytest
from medseg_agents.arrays.sb3.config import SB3PPOConfig
from medseg_agents.runs.folder import RunFolder, find_checkpoint
from medseg_agents.runs.log import RunLog, read_progress
from rich.console import Console

from medseg_gym.errors import MedSegError, PolicyError

VIEW = {"image_size": 64, "bins": 32, "tools": ["stop"], "targets": ["liver"]}


def test_a_run_is_not_overwritten_and_only_resumed_with_the_same_settings(tmp_path):
    run, config = RunFolder(tmp_path / "run"), SB3PPOConfig(steps=10)
    with pytest.raises(MedSegError, match="no run to resume"):
        run.start(config, VIEW, resume=True)
    run.start(config, VIEW, resume=False)
    with pytest.raises(MedSegError, match="--resume"):
        run.start(config, VIEW, resume=False)
    run.start(SB3PPOConfig(steps=10, extend=10, eval_every=0), VIEW, resume=True)
    with pytest.raises(MedSegError, match=r"--seed 0 \(not 1\), --clip 0\.2 \(not 0\.1\)\. Resume"):
        run.start(SB3PPOConfig(steps=10, seed=1, clip=0.1), VIEW, resume=True)
    with pytest.raises(MedSegError, match=r"--steps 10 \(not 25\).*--extend 15 to go on"):
        run.start(SB3PPOConfig(steps=25), VIEW, resume=True)


def test_a_checkpoint_is_there_whole_or_not_at_all(tmp_path):
    run = RunFolder(tmp_path)
    run.start(SB3PPOConfig(), VIEW, resume=False)

    def broken(folder):
        (folder / "half").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run.save(5, broken)
    assert run.newest() is None
    for step in (5, 120, 40):
        run.save(step, lambda folder: (folder / "model").write_text("whole"))
    assert list(run.checkpoints()) == [5, 40, 120]
    assert run.newest() == (120, tmp_path / "checkpoints" / "step-000000120")
    for path in (tmp_path, tmp_path / "checkpoints" / "step-000000120"):
        folder, seen = find_checkpoint(path)
        assert folder.name == "step-000000120" and seen["view"] == VIEW


def test_a_path_without_a_checkpoint_says_so(tmp_path):
    with pytest.raises(PolicyError, match="neither a run nor a checkpoint"):
        find_checkpoint(tmp_path)


def test_a_resumed_log_drops_what_is_played_again_and_counts_on(tmp_path):
    console = Console(file=open(tmp_path / "console", "w"), width=200)
    with RunLog(tmp_path, 100, console=console) as log:
        log.write(10, {"return": 0.5, "dice": float("nan")})
        log.write(20, {"return": 0.75})
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write('{"step": 30, "ret')  # torn by a kill
    seconds = read_progress(tmp_path)[-1]["seconds"]
    with RunLog(tmp_path, 100, step=10, console=console) as log:
        log.write(20, {"return": 1.0, "val/dice": 0.25})
    console.file.close()
    rows = read_progress(tmp_path)
    assert [(row["step"], row.get("return")) for row in rows] == [(10, 0.5), (20, 1.0)]
    assert "dice" not in rows[0] and rows[1]["seconds"] >= rows[0]["seconds"] <= seconds
    with (tmp_path / "progress.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["step"] for row in table] == ["10", "20"] and table[1]["val/dice"] == "0.25"
    assert list((tmp_path / "tensorboard").iterdir())
    text = (tmp_path / "console").read_text()
    assert "20/100 steps, return 1.000, val/dice 0.250" in text


def test_settings_round_trip_and_name_what_is_wrong():
    config = SB3PPOConfig(tools=("stop", "box"), clone="out/x", seed=3)
    assert SB3PPOConfig.from_mapping(json.loads(config.to_json())) == config
    with pytest.raises(MedSegError, match=r"no 'learing_rate' \(did you mean 'learning_rate'"):
        SB3PPOConfig.from_mapping({"learing_rate": 1})
    with pytest.raises(MedSegError, match="multiple of"):
        SB3PPOConfig(minibatch=100)
    assert config.learning_rate_at(0) == config.learning_rate
    assert config.learning_rate_at(1) == pytest.approx(config.learning_rate / 10)
