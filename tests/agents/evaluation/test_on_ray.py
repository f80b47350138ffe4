"""Evaluations, comparisons and recordings on a local Ray cluster are those of one process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray")

from medseg_agents import policies
from medseg_agents.evaluation.comparison import compare
from medseg_agents.evaluation.options import CompareOptions, EvalOptions
from medseg_agents.evaluation.run import run_evaluation

from medseg_gym.cases import load_cases
from medseg_gym.episodes.metrics import dice
from medseg_gym.errors import MedSegError
from medseg_gym.trajectories import GenerateOptions, TrajectoryStore, generate_episodes

from ..rllib.conftest import ray_cluster  # noqa: F401  (a fixture)

pytestmark = [
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.filterwarnings("ignore"),  # the warnings are Ray's
]
OPTIONS = EvalOptions(
    cases="phantoms:abdomen", policy="random", backbone="ellipse", num_envs=4, limit=14
)
RAY = {"ray": "local", "workers": 2}
FATAL = """
import os
from medseg_gym.annotators import make

class Fatal:
    \"\"\"Plays the middle, and dies of one case.\"\"\"
    name, sees_truth = "fatal", True

    def __init__(self, codec):
        self.inner = make("centre-box", codec)
        self.reset = self.inner.reset

    def act(self, observations, episodes):
        if any(one is not None and one.case.key == "KEY" for one in episodes):
            os._exit(9)
        return self.inner.act(observations)
"""


def numbers(records):
    return [replace(record, seconds=0.0) for record in records]


@pytest.mark.slow
def test_an_interrupted_evaluation_goes_on(tmp_path):
    alone = run_evaluation(OPTIONS, tmp_path / "alone")
    options, seen = replace(OPTIONS, **RAY), []

    def stop(batch):
        seen.extend(batch)
        if len(seen) >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_evaluation(options, tmp_path / "ray", on_batch=stop)
    file = tmp_path / "ray" / "records.jsonl"
    kept = file.read_text().splitlines()  # of two workers: batches lie as they came
    again = run_evaluation(options, tmp_path / "ray")
    assert numbers(again.records) == numbers(alone.records) and again.settings == alone.settings
    # Its seconds tell a line from that of a case which was played again.
    assert len(kept) >= 9 and set(kept) <= set(file.read_text().splitlines())


@pytest.mark.slow
def test_slices_and_whole_volumes_in_one_comparison(tmp_path):
    names = ("oracle-click", "oracle-key-slice", "stop")
    options = CompareOptions(
        cases="phantoms-volume", policies=names, backbones=("ellipse",), limit=2, num_envs=8
    )
    specs = [policies.make(name) for name in names]
    alone = compare(specs, options, tmp_path / "alone")
    over_ray = compare(specs, replace(options, **RAY), tmp_path / "ray")
    for one, other in zip(alone.played, over_ray.played, strict=True):
        assert (one.policy, one.plays) == (other.policy, other.plays)
        assert numbers(one.seeds[0].records) == numbers(other.seeds[0].records)
    assert alone.settings == over_ray.settings


@pytest.mark.slow
def test_episodes_are_recorded_by_the_program_alone(tmp_path):
    options = GenerateOptions(cases="phantoms:chest", backbone="ellipse", limit=10, num_envs=4)
    stores = [
        generate_episodes(tmp_path / name, one)
        for name, one in (("alone", options), ("ray", replace(options, **RAY)))
    ]
    alone, over_ray = (
        {one.key: (one.facts, one.steps, one.accepted) for one in store} for store in stores
    )
    assert alone == over_ray and len(alone) == 10


@pytest.mark.slow
def test_a_case_that_kills_its_actors_is_a_failed_case(tmp_path, monkeypatch):
    keys = [record.case for record in run_evaluation(OPTIONS, tmp_path / "first").records]
    monkeypatch.setattr("medseg_gym.parallel.sharing.TRIES", 1)
    monkeypatch.setattr("medseg_gym.parallel.sharing.TRIES_ALONE", 1)
    file = tmp_path / "fatal.py"
    file.write_text(FATAL.replace("KEY", keys[5]))
    options = replace(OPTIONS, policy=f"{file}:Fatal", limit=8, **RAY)
    played = run_evaluation(options, tmp_path / "out")
    assert [record.case for record in played.records] == [k for k in keys[:8] if k != keys[5]]
    (failed,) = played.failed
    assert failed.case == keys[5] and "1 worker died while it was played" in failed.failed
    with pytest.raises(MedSegError, match="1 failed case, and the run ends at max_failures=1"):
        run_evaluation(replace(options, max_failures=1), tmp_path / "out")
    lines = Path(tmp_path / "out" / "records.jsonl").read_text().splitlines()[1:]
    assert sum("failed" in json.loads(line) for line in lines) == 2


@pytest.mark.slow
def test_a_store_names_cases_that_kill(tmp_path, monkeypatch):
    monkeypatch.setattr("medseg_gym.parallel.sharing.TRIES", 1)
    monkeypatch.setattr("medseg_gym.parallel.sharing.TRIES_ALONE", 1)
    options = GenerateOptions(cases="phantoms:chest", backbone="ellipse", limit=6, num_envs=3)
    key = options.keys()[1]
    file = tmp_path / "fatal.py"
    file.write_text(FATAL.replace("KEY", key))
    with pytest.raises(MedSegError, match=rf"1 failed case: {key} \(rollout 0\): 1 worker died"):
        generate_episodes(tmp_path / "s", replace(options, annotator=f"{file}:Fatal", **RAY))
    assert {one.key.case for one in TrajectoryStore(tmp_path / "s")} == set(options.keys()) - {key}


PROVIDER = """
import numpy as np
from near import SHARE

def begun(case, share: float = SHARE):
    mask = np.zeros(case.mask.shape, bool)
    mask[:, : int(mask.shape[1] * share)] = True
    return mask
"""


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["mine:begun", ".%2Fmine.py%3Abegun?share=0.4"])
def test_own_initial_masks_reach_the_actors(spec, tmp_path, monkeypatch):
    """Actors are told nothing but the spec; the folder is not on their path."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(PROVIDER)
    Path("near.py").write_text("SHARE = 0.7\n")
    cases = f"phantoms:abdomen?position=random&initial_mask={spec}"
    options = EvalOptions(
        cases=cases, split="val", backbone="ellipse", policy="stop", limit=4, num_envs=2, **RAY
    )
    records = run_evaluation(options, "ray").records
    source, share = load_cases(cases, "val"), 0.4 if "0.4" in spec else 0.7
    assert len(records) == 4 and any(record.dice[0] > 0 for record in records)
    for record in records:
        truth = source[source.index_of(record.case)].mask
        begun = np.zeros(truth.shape, bool)
        begun[:, : int(truth.shape[1] * share)] = True
        assert record.dice[0] == pytest.approx(dice(begun, truth))
