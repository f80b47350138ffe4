"""Runs of `train_dagger`: what they learn, keep and refuse, and what goes on from them."""

import shutil

import pytest
import torch
from medseg_agents import policies
from medseg_agents.arrays.dagger import DaggerConfig, train_dagger
from medseg_agents.arrays.starting import check_start
from medseg_agents.evaluation.evaluate import evaluate
from medseg_agents.runs.log import read_progress
from rich.console import Console
from safetensors.torch import load_file

from medseg_gym.errors import MedSegError, PolicyError
from medseg_gym.policy import make_envs

QUIET = Console(quiet=True)
NETWORK = "checkpoints/step-{:09d}/network.safetensors"


@pytest.fixture(scope="module")
def settings(small_run):
    """Settings of a run on synthetic cases with the image-blind segmenter."""
    left_out = ("epochs", "minibatch")
    return {
        **{name: value for name, value in small_run.items() if name not in left_out},
        "minibatch": 16, "updates": 4, "steps": 256, "eval_every": 128, "checkpoint_every": 128,
        "patch": 4, "levels": 2,
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(settings, tmp_path_factory):
    path = tmp_path_factory.mktemp("dagger") / "run"
    train_dagger(DaggerConfig(**settings), path, console=QUIET)
    return path


def test_a_run_leaves_logs_and_checkpoints_and_plays(run):
    rows = read_progress(run)
    trained = [row for row in rows if "return" in row]
    assert [row["step"] for row in trained] == [64, 128, 192, 256]
    wanted = {"return", "dice", "turns", "train/place_loss", "train/tool_loss", "train/truth_loss",
              "train/value_loss", "train/tool_agreement", "time/annotator"}  # fmt: skip
    assert wanted <= set(trained[0])
    assert [row["train/beta"] for row in trained[:2]] == pytest.approx([1, 1 / 6])
    assert trained[0]["train/loss"] > trained[-1]["train/loss"]
    assert sum("val/dice" in row for row in rows) == 2
    assert [path.name for path in sorted((run / "samples").iterdir())] == [
        "step-00128.png", "step-00256.png",
    ]  # fmt: skip
    names = [path.name for path in sorted((run / "checkpoints").iterdir())]
    assert names == ["step-000000128", "step-000000256"]
    spec = policies.make(f"sb3:{run}")
    envs = make_envs(4, cases="phantoms:fundus", backbone="ellipse", max_steps=3, **spec.view)
    records = evaluate(envs, spec.build(envs), list(envs.source.keys[:8]))
    assert len(records) == 8


def test_the_generators_of_the_process_are_left_alone(settings, tmp_path):
    before = torch.get_rng_state()
    train_dagger(DaggerConfig(**{**settings, "steps": 64}), tmp_path / "r", console=QUIET)
    assert torch.equal(before, torch.get_rng_state())


def test_the_same_seed_learns_the_same(settings, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        config = DaggerConfig(**{**settings, "steps": 128, "eval_every": 0, "seed": seed})
        train_dagger(config, tmp_path / name, console=QUIET)
    one, same, other = (load_file(tmp_path / n / NETWORK.format(128)) for n in "abc")
    assert all(torch.equal(value, same[key]) for key, value in one.items())
    assert not all(torch.equal(value, other[key]) for key, value in one.items())


def test_resuming_goes_on_with_weights_and_moments(settings, run, tmp_path):
    shutil.copytree(run, tmp_path / "r")
    shutil.rmtree(tmp_path / "r/checkpoints/step-000000256")
    train_dagger(DaggerConfig(**settings), tmp_path / "r", resume=True, console=QUIET)
    rows = [row["step"] for row in read_progress(tmp_path / "r") if "return" in row]
    assert rows == [64, 128, 192, 256]
    states = [
        load_file(tmp_path / "r/checkpoints" / name / "learner.safetensors")
        for name in ("step-000000128", "step-000000256")
    ]
    assert [float(state["adam.0.step"]) for state in states] == [8, 16]


def test_a_run_with_nothing_left_to_do_ends_where_it_was(settings, run, tmp_path):
    shutil.copytree(run, tmp_path / "r")
    before = (tmp_path / "r" / NETWORK.format(256)).read_bytes()
    train_dagger(DaggerConfig(**settings), tmp_path / "r", resume=True, console=QUIET)
    assert (tmp_path / "r" / NETWORK.format(256)).read_bytes() == before


@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
def test_a_damaged_checkpoint_names_the_one_before(settings, run, tmp_path, damage):
    shutil.copytree(run, tmp_path / "r")
    state = tmp_path / "r/checkpoints/step-000000256/learner.safetensors"
    content = state.read_bytes()
    state.unlink()
    if damage != "gone":
        state.write_bytes(content[:-9] if damage == "cut" else b"")
    with pytest.raises(MedSegError, match=r"cannot be resumed from.*before it is .*0128"):
        config = DaggerConfig(**settings, extend=64)
        train_dagger(config, tmp_path / "r", resume=True, console=QUIET)


def test_it_goes_on_from_another_run(settings, run, tmp_path):
    config = DaggerConfig(**{**settings, "steps": 64, "seed": 7, "start": str(run)})
    train_dagger(config, tmp_path / "r", console=QUIET)
    shown = [row["train/loss"] for path in (run, tmp_path / "r") for row in read_progress(path)[:1]]
    assert shown[1] < shown[0]


def test_ppo_goes_on_from_it(settings, run, tmp_path):
    pytest.importorskip("stable_baselines3")
    from medseg_agents.arrays.sb3 import SB3PPOConfig, train_sb3

    given = {k: v for k, v in settings.items() if k != "updates"}
    tools = DaggerConfig().tools
    config = SB3PPOConfig(**given, epochs=1, tools=tools, start=str(run))
    train_sb3(config, tmp_path / "r", console=QUIET)
    start, began = (
        load_file(run / NETWORK.format(256)),
        load_file(tmp_path / "r" / NETWORK.format(0)),
    )
    assert start.keys() == began.keys()
    assert all(torch.equal(value, began[key]) for key, value in start.items())
    ended = load_file(tmp_path / "r" / NETWORK.format(256))
    assert not all(torch.equal(value, ended[key]) for key, value in start.items())


def test_a_start_of_another_kind_is_refused_with_the_options_to_give(settings, run, tmp_path):
    wrong = {"width": 8, "bins": 8, "tools": ("box", "stop"), "levels": 3}
    config = DaggerConfig(**{**settings, **wrong, "start": str(run), "annotator": "oracle-box"})
    options = " --bins 16 --tools box,positive_point,negative_point,stop --width 4 --levels 2"
    with pytest.raises(PolicyError) as refused:
        train_dagger(config, tmp_path / "r", console=QUIET)
    assert all(one in str(refused.value) for one in options.split(" --")[1:])
    assert "image-size" not in str(refused.value)
    assert not (tmp_path / "r").exists()
    config = DaggerConfig(**{**settings, "start": str(run)})
    with pytest.raises(PolicyError, match="trained on other targets"):
        check_start(config, config.view(("liver",)))
    config = DaggerConfig(**{**settings, "start": str(tmp_path / "none")})
    with pytest.raises(PolicyError, match="neither a run nor a checkpoint"):
        check_start(config, config.view(("liver",)))


def test_an_annotator_whose_tools_are_missing_is_refused_before_the_run(settings, tmp_path):
    config = DaggerConfig(**settings, tools=("positive_point", "negative_point", "stop"))
    with pytest.raises(PolicyError, match=r"box-to-point.* needs the tools \['box'\]"):
        train_dagger(config, tmp_path / "r", console=QUIET)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    "wrong", [{"beta": 1.5}, {"updates": 0}, {"corner_blur": -1}, {"patch": 3}, {"levels": 0}]
)
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(MedSegError, match=next(iter(wrong))):
        DaggerConfig(**wrong)


def test_start_and_clone_are_not_given_together():
    from medseg_agents.arrays.sb3.config import SB3PPOConfig

    with pytest.raises(MedSegError, match="start and clone"):
        SB3PPOConfig(start="a", clone="b")
