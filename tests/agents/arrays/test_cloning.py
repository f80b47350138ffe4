"""Behaviour cloning from stored trajectories."""

import numpy as np
import pytest
import torch
from medseg_agents.arrays.cloning import clone, read_demonstrations
from medseg_agents.arrays.networks import NetworkConfig, PromptNetwork
from medseg_agents.arrays.sb3.config import SB3PPOConfig
from medseg_agents.runs.log import RunLog, read_progress
from rich.console import Console

from medseg_gym.envs.views.array import ArrayView
from medseg_gym.errors import PolicyError, PromptError
from medseg_gym.policy import make_envs
from medseg_gym.trajectories import GenerateOptions, TrajectoryStore, generate_episodes

CLICKS = ("positive_point", "negative_point", "stop")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("demonstrations") / "store"
    options = GenerateOptions(
        cases="phantoms:fundus", split="train", annotator="sequential-click", backbone="ellipse",
        limit=24, max_steps=3,
    )  # fmt: skip
    generate_episodes(path, options)
    return path


def view(tools=CLICKS, cases="phantoms:fundus"):
    envs = make_envs(1, cases=cases, backbone="ellipse")
    return ArrayView(envs.source.targets, 32, 16, tools)


def test_demonstrations_are_what_the_environment_showed(store):
    data = read_demonstrations(store, view(), max_steps=3)
    kept = [t for t in TrajectoryStore(store) if t.accepted is not False]
    assert data.episodes == len(kept) > 0
    envs = make_envs(
        1, cases="phantoms:fundus", split="train", backbone="ellipse", image_size=32, bins=16,
        tools=CLICKS, max_steps=3,
    )  # fmt: skip
    row = 0
    for trajectory in kept:
        seen, _ = envs.reset(options={"case": trajectory.key.case})
        assert data.returns[row] == pytest.approx(sum(trajectory.rewards), abs=1e-5)
        for number, step in enumerate(trajectory.steps):
            expected = envs.codec.encode(step.prompt)
            assert np.array_equal(data.actions[row], expected)
            for key, value in seen.items():
                if key == "mask" and number:  # coarser bins here than when it was recorded
                    continue
                if key == "prompts" and number:
                    continue
                assert np.array_equal(data.observations[key][row], value[0]), key
            seen, *_ = envs.step(data.actions[row][None])
            row += 1
    assert row == len(data.actions)


def test_cloning_raises_the_likelihood_of_the_expert(store, tmp_path):
    shown = view()
    torch.manual_seed(0)
    network = PromptNetwork(
        shown.observation_space, shown.action_space, NetworkConfig(width=8, tools=CLICKS)
    )
    config = SB3PPOConfig(
        cases="phantoms:fundus", image_size=32, bins=16, max_steps=3, clone=str(store),
        clone_epochs=20, minibatch=32,
    )  # fmt: skip
    with RunLog(tmp_path, 1, console=Console(quiet=True)) as log:
        clone(network, config, config.view(shown.targets), log)
    losses = [row["clone/loss"] for row in read_progress(tmp_path)]
    assert len(losses) == 20 and losses[-1] < losses[0] - 0.5
    assert all("clone/held_out_loss" in row for row in read_progress(tmp_path))


def test_what_does_not_fit_is_refused(store, tmp_path):
    with pytest.raises(PromptError, match="not among this view's tools"):
        read_demonstrations(store, view(("box", "stop")), max_steps=3)
    with pytest.raises(PolicyError, match="max_steps 3, the environment has 5"):
        read_demonstrations(store, view(), max_steps=5)
    held_out = GenerateOptions(
        cases="phantoms:fundus", split="test", annotator="sequential-click", backbone="ellipse",
        limit=4, max_steps=3,
    )  # fmt: skip
    generate_episodes(tmp_path / "test", held_out)
    with pytest.raises(PolicyError, match="only training cases"):
        read_demonstrations(tmp_path / "test", view(), max_steps=3)
