"""Rejection sampling with the tiny model."""

import pytest

pytest.importorskip("trl")

from medseg_agents import policies
from medseg_agents.best_of_n.config import BestOfNError, BestOfNRun
from medseg_agents.best_of_n.selection import select_best, write_best
from medseg_agents.best_of_n.train import sample_cases, train_best_of_n
from medseg_agents.runs.log import read_progress
from medseg_agents.sft.data import load_conversations
from rich.console import Console

from medseg_gym.cases import case_source
from medseg_gym.cases.case_source import CaseList
from medseg_gym.trajectories import TrajectoryStore, export_pairs

CASES = 4


@pytest.fixture(scope="module", autouse=True)
def small_spec(small_cases):
    """The cases that the model knows the words of, by a spec as a store keeps it."""
    with case_source.CASES.temporarily():
        case_source.CASES.register("small", lambda argument, split: CaseList(small_cases[:CASES]))
        yield
    case_source._open.cache_clear()


def settings(caller, **other):
    defaults = {
        "model": str(caller),
        "cases": "small:",
        "backbone": "ellipse",
        "num_envs": 3,  # a batch is left half empty
        "num_generations": 3,
        "max_steps": 3,
        "max_completion_length": 30,
        "steps": 2,
        "batch_size": 2,
        "log_every": 1,
        "device": "cpu",
    }
    return BestOfNRun(**(defaults | other))


@pytest.fixture(scope="module")
def run(caller, small_spec, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    model = train_best_of_n(settings(caller), out, console=Console(quiet=True))
    return out, model


def test_the_best_of_each_case_is_imitated(run, tmp_path):
    out, model = run
    samples, best = (TrajectoryStore(out / "iteration-001" / name) for name in ("samples", "best"))
    assert len(samples) == 3 * CASES and len({one.key.case for one in samples}) == CASES
    returns, readable = {}, {}
    for one in samples:
        returns.setdefault(one.key.case, []).append(sum(one.rewards))
        if None not in one.prompts:
            readable.setdefault(one.key.case, []).append(sum(one.rewards))
    assert len({value for values in returns.values() for value in values}) > CASES  # drawn
    assert {one.key.case: sum(one.rewards) for one in best} == {
        case: max(values) for case, values in readable.items()
    }
    rows, (view, *_) = load_conversations((str(out / "iteration-001" / "best.parquet"),), tmp_path)
    assert len(rows) == len(best) and view["texts"] == "terse" and view["image_size"] == 64
    (row,) = read_progress(out)
    assert row["kept"] == len(best) and row["best_return"] > row["return"]
    assert row["cases_unreadable"] == CASES - len(best)
    assert policies.make(f"llm:{model}").view["image_size"] == 64


def test_a_run_goes_on_with_another_iteration(run, caller):
    out, model = run
    with pytest.raises(BestOfNError, match="holds a run"):
        train_best_of_n(settings(caller), out)
    first = out / "iteration-001" / "sft" / "model" / "model.safetensors"
    before, written = first.stat().st_mtime_ns, (model / "model.safetensors").read_bytes()
    longer = settings(caller, extend=1)
    assert train_best_of_n(longer, out, resume=True, console=Console(quiet=True)) == model
    assert first.stat().st_mtime_ns == before
    assert (model / "model.safetensors").read_bytes() != written
    one, two = (TrajectoryStore(out / f"iteration-00{i}" / "samples") for i in (1, 2))
    assert not set(one.keys()) & set(two.keys()) and len(two) == len(one)
    assert [row["step"] for row in read_progress(out)] == [1, 2]


def test_sampling_fills_up_what_a_kill_left(caller, tmp_path):
    class Killed(Exception):
        pass

    whole = sample_cases(settings(caller), caller, tmp_path / "whole", 1)
    calls = []

    def kill():
        calls.append(None)
        if len(calls) == 3:
            raise Killed

    with pytest.raises(Killed):
        sample_cases(settings(caller), caller, tmp_path / "torn", 1, kill)
    assert 0 < len(TrajectoryStore(tmp_path / "torn")) < len(whole)
    again = sample_cases(settings(caller), caller, tmp_path / "torn", 1)
    assert {one.key: one.rewards for one in again} == {one.key: one.rewards for one in whole}
    assert again.duplicates == 0
    # The samples of one case are what pairs for DPO are made of, too.
    assert export_pairs(again, tmp_path / "pairs.parquet", margin=1e-3).pairs >= 1


def test_a_threshold_keeps_less_and_what_is_left_out_is_counted(run, caller, tmp_path):
    store = TrajectoryStore(run[0] / "iteration-001" / "samples")
    every = select_best(store, None)
    values = sorted(sum(store.episode(key).rewards) for key in every.chosen)
    some = select_best(store, values[-1])
    assert len(some.chosen) + some.below == len(every.chosen) and some.below > 0
    best = write_best(store, some.chosen, tmp_path / "best")
    best = write_best(store, some.chosen, tmp_path / "best")  # again: nothing twice
    assert best.keys() == some.chosen and best.duplicates == 0
    with pytest.raises(BestOfNError, match=r"none is kept: \d cases whose best return is below 9"):
        train_best_of_n(
            settings(caller, min_return=9, num_generations=2, limit=1, num_envs=1),
            tmp_path / "run",
            console=Console(quiet=True),
        )


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"num_generations": 1}, "the best of 1 is no choice"),
        ({"temperature": 0}, "temperature must be > 0"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"model": ""}, "--model FOLDER"),
    ],
)
def test_settings_that_make_no_sense(caller, other, match):
    with pytest.raises(BestOfNError, match=match):
        settings(caller, **other)
