"""The shared network: layouts, batches, and what it refuses."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from medseg_agents.arrays.networks import NetworkConfig, PromptNetwork
from medseg_agents.policies.network import NetworkPolicy

import medseg_gym  # noqa: F401  (registers the ids)
from medseg_gym.envs.views.array import ArrayView
from medseg_gym.errors import PolicyError
from medseg_gym.prompts import TOOLS

CLICKS = ("positive_point", "negative_point", "stop")


def make(side=32, bins=16, tools=CLICKS, **options):
    view = ArrayView(["liver", "spleen"], side, bins, tools)
    torch.manual_seed(0)
    config = NetworkConfig(width=4, tools=tools, **options)
    return PromptNetwork(view.observation_space, view.action_space, config), view


def observations(view, rows=4, seed=0):
    space = view.observation_space
    space.seed(seed)
    samples = [space.sample() for _ in range(rows)]
    return {key: torch.from_numpy(np.stack([s[key] for s in samples])) for key in space.keys()}


@pytest.mark.parametrize("tools", [CLICKS, TOOLS, ("box",), ("negative_point", "undo")])
@pytest.mark.parametrize("side, bins", [(32, 16), (32, 1000), (64, 8), (40, 5)])
def test_every_view_gets_inputs_of_its_size(tools, side, bins):
    network, view = make(side, bins, tools)
    inputs, values = network(observations(view))
    assert inputs.shape == (4, network.num_inputs) and values.shape == (4,)
    actions = network.distribution(inputs).sample()
    assert all(view.action_space.contains(row) for row in actions.numpy())


@pytest.mark.parametrize("patch, levels", [(2, 1), (2, 4), (4, 2), (4, 3), (8, 2)])
def test_patches_and_levels_change_the_network_and_not_its_inputs(patch, levels):
    network, view = make(32, 16, TOOLS, patch=patch, levels=levels)
    batch = observations(view)
    inputs, _ = network(batch)
    assert inputs.shape == (4, network.num_inputs) and network.cells == 16
    assert network.look(batch)[2].shape == (4, 4, 32 // patch, 32 // patch)
    inputs.sum().backward()
    unused = {name for name, one in network.named_parameters() if one.grad is None}
    assert unused == {"value.weight", "value.bias"}


@pytest.mark.parametrize("patch", [2, 4])
def test_the_stem_reads_planes_part_by_part_as_one(patch):
    """The sum of convolutions is the convolution of all planes in one tensor."""
    network, view = make(32, 16, CLICKS, patch=patch)
    batch = observations(view)
    planes = [batch[name].permute(0, 3, 1, 2) for name in ("image", "mask", "prompts")]
    pixels = torch.cat(planes, 1).float() / 127.5 - 1
    whole = network.stem(torch.cat([pixels, network.grid.expand(4, -1, -1, -1)], 1))
    torch.testing.assert_close(network._see(batch), whole, atol=1e-5, rtol=1e-4)


def test_bfloat16_changes_little():
    network, view = make(32, 16, TOOLS)
    batch = observations(view)
    with torch.autocast("cpu", torch.bfloat16):
        lower = network(batch)[0].float()
    assert (lower - network(batch)[0]).abs().max() < 0.02


def test_channels_may_come_first_or_last():
    network, view = make()
    last = observations(view)
    first = {k: v.permute(0, 3, 1, 2) if v.dim() == 4 else v for k, v in last.items()}
    for a, b in zip(network(last), network(first), strict=True):
        assert torch.equal(a, b)


def test_the_target_may_be_an_index_or_one_hot():
    network, view = make()
    index = observations(view)
    hot = {**index, "target": torch.nn.functional.one_hot(index["target"], 3)}
    assert torch.equal(network(index)[0], network(hot)[0])


def test_a_row_does_not_depend_on_its_batch():
    network, view = make()
    batch = observations(view)
    whole = network(batch)[0]
    alone = network({key: value[1:2] for key, value in batch.items()})[0]
    torch.testing.assert_close(whole[1:2], alone, atol=1e-5, rtol=1e-4)


def test_what_it_sees_matters():
    network, view = make()
    batch = observations(view)
    before = network(batch)[0]
    for key, value in batch.items():
        changed = torch.zeros_like(value) if value.any() else torch.ones_like(value)
        assert not torch.allclose(network({**batch, key: changed})[0], before, atol=1e-6), key


def test_stop_starts_rare():
    network, view = make(stop_bias=-4.0)
    distribution = network.distribution(network(observations(view))[0])
    assert (distribution.tool_logp[:, 2].exp() < 0.03).all()


def test_views_that_do_not_fit_are_refused_with_the_way_out():
    view = ArrayView(["liver"], 32, 16, CLICKS)
    with pytest.raises(PolicyError, match=r"3 tools.*tools=\[\.\.\.\]"):
        PromptNetwork(view.observation_space, view.action_space, NetworkConfig())
    odd = ArrayView(["liver"], 36, 16, CLICKS)
    with pytest.raises(PolicyError, match="multiple of 8 "):
        PromptNetwork(odd.observation_space, odd.action_space, NetworkConfig(tools=CLICKS))
    idle = ArrayView(["liver"], 32, 16, ("undo", "stop"))
    with pytest.raises(PolicyError, match="makes a mask"):
        PromptNetwork(
            idle.observation_space, idle.action_space, NetworkConfig(tools=("undo", "stop"))
        )
    with pytest.raises(PolicyError, match="array view"):
        PromptNetwork(spaces.Dict(), view.action_space, NetworkConfig(tools=CLICKS))  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="array actions"):
        PromptNetwork(
            view.observation_space,
            spaces.Discrete(3),  # type: ignore[arg-type]
            NetworkConfig(tools=CLICKS),
        )


@pytest.mark.parametrize("sampled", [False, True])
def test_a_network_that_has_diverged_is_not_played(sampled, small_cases):
    envs = gym.make_vec(
        "MedSeg-v0", num_envs=2, cases=small_cases, backbone="ellipse", image_size=32
    )
    network = PromptNetwork(envs.single_observation_space, envs.single_action_space)
    policy = NetworkPolicy(network, "mine", sampled)
    observations, _ = envs.reset(seed=0)
    assert policy.act(observations).shape == (2, 5)
    with torch.no_grad():
        network.tool.bias[2] = float("nan")
    with pytest.raises(PolicyError, match="mine: the network's outputs are not finite"):
        policy.act(observations)
