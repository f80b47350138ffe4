"""Methods of the paper index, trained alike: what is compared, and how sure it is."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

pytest.importorskip("trl")

from medseg_agents.best_of_n.config import BestOfNRun
from medseg_agents.dpo.config import DpoConfig
from medseg_agents.grpo.settings import GRPORun

from benchmarks.learning.methods.__main__ import run
from benchmarks.learning.methods.budget import explored_returns, trained
from benchmarks.learning.methods.catalogue import DEFAULT, METHODS, PAPERS, choose_methods
from benchmarks.learning.methods.markdown import spread
from benchmarks.learning.methods.sizes import Sizes, chain_of, run_of
from benchmarks.learning.methods.training import grpo_settings, sampling_settings
from medseg_gym.errors import MedSegError

_OPTIONS = {"grpo": GRPORun, "best-of-n": BestOfNRun, "dpo": DpoConfig}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_switch_and_plays_as_many_episodes(name):
    method, sizes, start = METHODS[name], Sizes(), Path("start")
    if method.kind == "sft":  # plays none
        assert not method.settings and trained(Path("out"), name, 0, sizes).episodes == 0
        return
    assert set(method.settings) <= {one.name for one in fields(_OPTIONS[method.kind])}
    if method.kind == "grpo":
        settings = grpo_settings(method, 0, sizes, start)
        default = grpo_settings(METHODS[DEFAULT], 0, sizes, start)
        other_start = method.overlay != METHODS[DEFAULT].overlay
        assert (settings == default) == (name == DEFAULT or other_start)
        assert settings.episodes * settings.iterations == sizes.episodes
    else:
        rounds = sizes.best_rounds if method.kind == "best-of-n" else 1
        settings = sampling_settings(0, sizes, start, rounds)
        assert settings.limit * settings.num_generations * rounds == sizes.episodes


def test_options_are_those_of_the_command_line():
    assert METHODS["gdpo"].options == (
        "medseg train grpo --reward-weights dice_gain=1,cost=-1"
        " --multi-objective-aggregation normalize_then_sum"
    )
    assert METHODS["dynamic_sampling"].options == "medseg train grpo --dynamic-sampling"
    assert METHODS["still_tower"].options == "medseg train grpo --no-train-vision"


def test_methods_are_chosen_by_name_and_the_default_is_always_one():
    assert choose_methods("gspo,cispo") == [DEFAULT, "cispo", "gspo"]
    assert choose_methods("all") == list(PAPERS)
    with pytest.raises(MedSegError, match="unknown methods"):
        choose_methods("grppo")


def test_a_mask_drawn_otherwise_has_a_start_of_its_own(tmp_path):
    sizes = Sizes()
    shared = {chain_of(tmp_path, name, 1, sizes) for name in METHODS if name != "no_overlay"}
    own = chain_of(tmp_path, "no_overlay", 1, sizes)
    assert shared == {tmp_path / "start"} and own == tmp_path / "start-overlay-none"
    assert sizes.chain("none").chat.overlay == "none" != sizes.chain().chat.overlay
    with pytest.raises(MedSegError, match="no_overlay needs a start of its own"):
        chain_of(tmp_path, "no_overlay", 1, Sizes(starts="runs/a"))


def test_dynamic_sampling_is_judged_before_it_has_played_more_than_the_others(tmp_path):
    sizes = Sizes(iterations=4, groups=2, num_generations=2)
    run_folder = run_of(tmp_path, "dynamic_sampling", 0)
    for step in range(1, 5):
        (run_folder / "checkpoints" / f"step-{step:09d}").mkdir(parents=True)
    rows = [
        {"step": step, "groups/resampled": number} for step, number in enumerate((1, 0, 3, 0), 1)
    ]
    (run_folder / "progress.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    last = trained(tmp_path, "dynamic_sampling", 0, sizes)
    assert (last.episodes, last.iterations, sizes.episodes) == (10, 2, 16)
    assert last.model == run_folder / "checkpoints" / "step-000000002" / "model"
    assert trained(tmp_path, "default", 0, sizes).episodes == 16
    with pytest.raises(MedSegError, match="first iteration played more than 4"):
        trained(tmp_path, "dynamic_sampling", 0, Sizes(iterations=1, groups=2, num_generations=2))


def test_returns_while_exploring_stand_at_the_episodes_played_until_then(tmp_path):
    sizes = Sizes(iterations=4, groups=2, num_generations=8, best_rounds=2)
    rows = {
        "default": [{"step": k + 1, "return": k / 4} for k in range(4)],
        "best_of_n": [{"step": 1, "return": 0.1}, {"step": 2, "return": 0.2}],
        "dynamic_sampling": [{"step": 1, "return": 0.3, "groups/resampled": 1}],
        "sft": [{"step": 1, "loss": 1.0}],
    }
    for name, lines in rows.items():
        folder = run_of(tmp_path, name, 0)
        folder.mkdir(parents=True)
        (folder / "progress.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in lines))
    points = {name: explored_returns(tmp_path, name, 0, sizes) for name in rows}
    assert points["default"] == [(16, 0), (32, 0.25), (48, 0.5), (64, 0.75)]
    assert points["best_of_n"] == [(32, 0.1), (64, 0.2)]
    assert points["dynamic_sampling"] == [(24, 0.3)] and points["sft"] == []


def test_a_difference_is_claimed_only_where_its_interval_leaves_out_0():
    row = {"x": 0.1, "x_low": -0.1, "x_high": 0.3, "y": 0.1, "y_low": 0.05, "y_high": 0.2}
    assert spread(row, "x") == "+0.100 [-0.100, +0.300]"
    assert spread(row, "y") == "**+0.100 [+0.050, +0.200]**"
    assert spread({"z": 0.1, "z_low": "", "z_high": ""}, "z") == "+0.100"


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.filterwarnings("default")  # Ray's and transformers' own
def test_two_methods_are_trained_from_nothing_and_go_on(tmp_path):
    small = (
        "experts=8,images=8,first_steps=2,mixed_steps=2,pool=8,iterations=1,groups=2,"
        "num_generations=2,minibatches=1,test=24,max_steps=2"
    )
    out = tmp_path / "methods"
    run(
        out=out,
        seeds="0,1",
        methods="cispo,sft,no_overlay",
        threads=1,
        settings=f"{small},sft_steps=2",
    )
    result = json.loads((out / "result.json").read_text())
    rows = {row["method"]: row for row in result["rows"]}
    assert list(rows) == ["start", "default", "cispo", "sft", "no_overlay"]
    assert {row["cases"] for row in rows.values()} == {24}
    assert rows["default"]["return_over_start_low"] != "" == rows["default"]["return_over_default"]
    # No target is absent in these scenes.
    assert rows["cispo"]["present_dice_1_over_start"] == rows["cispo"]["dice_1_over_start"]
    for figure in ("differences.png", "learning.png", "calls_used.png"):
        assert (out / figure).stat().st_size > 5000, figure
    assert len(list((out / "filmstrips").glob("*.png"))) == 2  # of the start and the default
    assert (out / "table.md").read_text().count("\n") == 7
    made = (out / "runs" / "default-1" / "model" / "model.safetensors").stat().st_mtime_ns
    run(out=out, seeds="0,1", methods="default", threads=1, settings=f"{small},sft_steps=2")
    assert (
        out / "runs" / "default-1" / "model" / "model.safetensors"
    ).stat().st_mtime_ns == made  # nothing is done again
    with pytest.raises(MedSegError, match="other settings"):
        run(out=out, seeds="0", methods="default", threads=1, settings="pool=4")
    # The same methods from starts that are there already, a seed from each.
    starts = f"{small},starts={out / 'start'}+{out / 'start'}"
    again = tmp_path / "again"
    run(out=again, seeds="0,1", methods="default", threads=1, settings=starts)
    result = json.loads((again / "result.json").read_text())
    assert [row["seeds"] for row in result["rows"]] == [2, 2] and not (again / "start").exists()
    assert result["rows"][1]["return"] == rows["default"]["return"]
    with pytest.raises(MedSegError, match=r"nowhere.*is not there: starts="):
        run(out=tmp_path / "third", settings=f"starts={tmp_path / 'nowhere'}")
