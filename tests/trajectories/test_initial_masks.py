"""Recordings of episodes that began with a mask."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

import medseg_gym  # noqa: F401
from medseg_gym.cases.initial.wrong import Wrong
from medseg_gym.trajectories import StoredCases, TrajectoryStore, VectorRecorder, rebuild_episode

SPEC = "phantoms:abdomen?position=random&initial_mask=wrong"


def record(path, cases, close=True):
    envs = gym.make_vec("MedSeg-v0", num_envs=3, cases=cases, backbone="ellipse", max_steps=3)
    envs = VectorRecorder(envs, path, seed=0, policy="random")
    envs.reset(seed=0)
    envs.action_space.seed(0)
    for _ in range(12):
        envs.step(envs.action_space.sample())
    store = TrajectoryStore(path)  # part of it is in the journal still
    known = list(store)
    envs.close()
    return known, list(TrajectoryStore(path))


@pytest.mark.parametrize("cases", [SPEC, "in memory"])
def test_it_is_kept_and_comes_back(cases, tmp_path, small_cases):
    if cases != SPEC:
        cases = [replace(case, initial_mask=Wrong()(case)) for case in small_cases]
    in_journal, in_chunk = record(tmp_path / "store", cases)
    assert in_journal and in_chunk
    for one in [*in_journal, *in_chunk]:
        assert one.initial_mask is not None and one.initial_mask.any()
        finder = StoredCases(None if cases == SPEC else cases)
        case = finder.find(one)
        assert np.array_equal(case.initial_mask, one.initial_mask)
        for episode in (rebuild_episode(one), rebuild_episode(one, case)):
            assert episode.start_dice == pytest.approx(one.summary.start_dice)
            assert [step.dice for step in episode.steps] == [step.dice for step in one.steps]


def test_what_was_played_counts_where_masks_have_changed(tmp_path, small_cases):
    begun = [replace(case, initial_mask=Wrong(("half",))(case)) for case in small_cases]
    _, stored = record(tmp_path / "store", begun)
    other = [replace(case, initial_mask=Wrong(("leaking",))(case)) for case in small_cases]
    for one in stored:
        assert np.array_equal(StoredCases(other).find(one).initial_mask, one.initial_mask)
    assert StoredCases(small_cases).find(stored[0]).initial_mask is not None


def test_without_one_the_column_is_null(make_store):
    table = TrajectoryStore(make_store()).to_table(["initial_mask", "case"])
    assert table["initial_mask"].null_count == table.num_rows > 0
