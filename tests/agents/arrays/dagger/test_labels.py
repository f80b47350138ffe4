"""Labels: where a click or a corner may be, and the annotator's choice as the likeliest place."""

import numpy as np
import pytest
import torch
from medseg_agents.arrays.dagger.labels import make_labels, place_targets, pool
from medseg_agents.arrays.distribution import PromptDistribution, count_maps, place_maps

from medseg_gym import annotators
from medseg_gym.policy import ask, give_engine, make_envs

TOOLS = ("box", "positive_point", "negative_point", "stop")


@pytest.fixture(scope="module")
def states():
    """Environments in the middle of four episodes, and what two annotators say."""
    envs = make_envs(
        4, cases="phantoms:fundus", backbone="ellipse", image_size=32, bins=16, tools=TOOLS
    )
    seen, _ = envs.reset(seed=0)
    seen, *_ = envs.step(np.array([[0, 2, 2, 9, 9]] * 4))
    episodes = [envs.engine.episode(slot) for slot in range(4)]
    advice = {}
    for name in ("oracle-click", "oracle-box"):
        annotator = annotators.make(name, envs.codec)
        give_engine(annotator, envs)
        annotator.reset(list(range(4)), [np.random.default_rng(0)] * 4)
        advice[name] = ask(annotator, seen, episodes)
    return envs, episodes, advice


def test_a_click_may_be_anywhere_in_the_error(states):
    envs, episodes, advice = states
    labels = make_labels(advice["oracle-click"], episodes, envs.codec, 16, sharpness=2)
    for row, episode in enumerate(episodes):
        mask, truth = episode.state.mask.numpy(), episode.case.mask
        tool = TOOLS[labels.actions[row, 0]]
        error = truth & ~mask if tool == "positive_point" else mask & ~truth
        assert not (labels.clicks[row] > 0)[pool(error, 16) == 0].any()
        assert labels.clicks[row].max() == 255
        # The annotator's own cell is one of the best.
        x, y = labels.actions[row, 1:3]
        assert labels.clicks[row, y, x] >= 0.4 * 255
        share = pool(truth, 16) / pool(np.ones_like(truth), 16)
        assert np.abs(labels.truth[row] / 255 - share).max() < 0.01


def test_a_click_outside_of_any_error_is_its_own_cell(states):
    envs = states[0]
    envs.reset(seed=0)
    episodes = [envs.engine.episode(slot) for slot in range(4)]
    actions = np.array([[2, 3 + row, 9, 0, 0] for row in range(4)])  # negative, on no mask
    labels = make_labels(actions, episodes, envs.codec, 16, sharpness=2)
    for row in range(4):
        assert labels.clicks[row].sum() == 255
        assert labels.clicks[row, actions[row, 2], actions[row, 1]] == 255


@pytest.mark.parametrize("blur", [0.0, 0.7, 2.0])
def test_corners_are_blurred_round_their_cells(blur):
    actions = torch.tensor([[0, 3, 5, 12, 9], [1, 4, 4, 0, 0]])
    clicks = torch.zeros(2, 16, 16, dtype=torch.uint8)
    clicks[1, 4, 4], clicks[1, 4, 5] = 255, 85
    places = place_targets(actions, clicks, TOOLS, 16, blur)
    assert places.shape == (2, count_maps(TOOLS), 256)
    box = [i for i, (tool, _) in enumerate(place_maps(TOOLS)) if tool == "box"]
    assert torch.allclose(places[0, box].sum(1), torch.ones(2))
    assert places[0, box].argmax(1).tolist() == [5 * 16 + 3, 9 * 16 + 12]
    assert (places[0, box] > 0).sum() == 2 if blur == 0 else (places[0, box] > 0.01).sum() > 8
    assert places[1, 2].max() == pytest.approx(0.75)


def test_the_cross_entropy_of_certain_places_is_the_likelihood():
    torch.manual_seed(0)
    inputs = torch.randn(5, len(TOOLS) + count_maps(TOOLS) * 256)
    distribution = PromptDistribution(inputs, TOOLS, 16, 16)
    actions = distribution.sample()
    clicks = torch.zeros(5, 16, 16, dtype=torch.uint8)
    clicks[torch.arange(5), actions[:, 2], actions[:, 1]] = 255
    places = place_targets(actions, clicks, TOOLS, 16, blur=0)
    tools, apart = distribution.cross_entropy(actions[:, 0], places)
    torch.testing.assert_close(-(tools + apart), distribution.log_prob(actions))
