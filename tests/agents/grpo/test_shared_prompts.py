"""First prompts that a group's episodes share: read once a step, learned through exactly."""

import functools

import numpy as np
import pytest
import torch
from medseg_agents.grpo.rollout.processed_rows import pad
from medseg_agents.grpo.rollout.token_rows import HashedImage, TurnTokens, rows_of
from medseg_agents.grpo.shared_prompts import SharedPrompts

from .conftest import dealt, learned

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


def gradients_of(algo, episodes, monkeypatch):
    """Of the step that learns from episodes, by weight; and what was logged."""
    learner = algo.learner_group._learner
    kept = {}

    def keep(gradients):
        named = {param: name for name, param in algo.own_module().named_parameters()}
        kept.update({named[learner._params[r]]: g.clone() for r, g in gradients.items()})

    monkeypatch.setattr(learner, "apply_gradients", keep)
    (result,) = algo.learner_group.update(episodes=episodes, timesteps={})
    return kept, result["default_policy"]


@pytest.mark.parametrize(
    "settings",
    [
        {"micro_batch": 64},
        {"micro_batch": 3, "beta": 0.1, "entropy": 0.01},
        {"micro_batch": 5, "lora_rank": 2, "beta": 0.1},
        {"micro_batch": 3, "history": "1"},
        {"micro_batch": 4, "history": "none", "loss_type": "grpo"},
        {"micro_batch": 3, "gradient_checkpointing": True, "beta": 0.1, "logit_chunk": 7},
        {"micro_batch": 64, "gradient_checkpointing": True, "lora_rank": 2},
    ],
)
def test_gradients_are_those_of_rows_computed_whole(make, monkeypatch, settings):
    plain = {**settings, "share_prompts": False, "gradient_checkpointing": False}
    shared, whole = make(**settings), make(**plain)
    episodes = shared.env_runner.sample(groups=dealt(shared))
    gradients, metrics = gradients_of(shared, episodes, monkeypatch)
    wanted, wanted_metrics = gradients_of(whole, episodes, monkeypatch)
    assert gradients.keys() == wanted.keys() and len(gradients) > 4
    assert float(metrics["sampling/max_ratio_deviation"].peek()) < 1e-3
    for name in ("entropy", "approx_kl", "sampling/max_ratio_deviation"):
        assert float(metrics[name].peek()) == pytest.approx(
            float(wanted_metrics[name].peek()), rel=1e-3, abs=1e-4
        )
    largest = max(float(g.abs().max()) for g in wanted.values())
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-4 * largest, rtol=1e-2)


def test_a_prompt_is_read_once_for_its_group_and_its_image_encoded_once(make, monkeypatch):
    algo = make(micro_batch=6)
    episodes = algo.env_runner.sample(groups=dealt(algo))
    inner = algo.own_module().base.model
    read, encoded = [], []
    forward, encode = inner.forward, inner.get_image_features

    @functools.wraps(forward)  # its signature is looked at
    def counted(input_ids, **named):
        read.append((torch.is_grad_enabled(), *input_ids.shape))
        return forward(input_ids=input_ids, **named)

    def counted_images(pixels, grids, **named):
        encoded.append((torch.is_grad_enabled(), len(grids)))
        return encode(pixels, grids, **named)

    monkeypatch.setattr(inner, "forward", counted)
    monkeypatch.setattr(inner, "get_image_features", counted_images)
    algo.learner_group.update(episodes=episodes, timesteps={})
    parts = -(-16 // 6)
    assert len(read) == parts + 2  # every part, and the prompts twice
    assert [grad for grad, *_ in read] == [False] + [True] * (parts + 1)
    longest = max(len(e.get_extra_model_outputs("prompt", 0)) for e in episodes)
    assert read[0][1:] == (4, longest - 1)  # the last token is each row's own
    assert [shape for _, *shape in read].count([4, longest - 1]) == 2
    later = {
        e.get_observations(turn)["image"].tobytes() for e in episodes for turn in range(1, len(e))
    }
    learned_through = sum(count for grad, count in encoded if grad)
    assert len(later) + 4 <= learned_through <= sum(len(e) - 1 for e in episodes) + 4


def test_what_cannot_share_is_computed_whole(make):
    assert not make(share_prompts=False).own_module().shares_prompts
    assert not make("ppo").own_module().shares_prompts
    algo = make()
    assert algo.own_module().shares_prompts
    assert learned(algo.train())["sampling/max_ratio_deviation"] < 1e-3


def rows_with(prompts):
    images = (HashedImage.of(np.zeros((2, 2, 3), np.uint8)),)
    rows = []
    for episode, prompt in enumerate(prompts):
        completion = np.array([50 + episode], np.int32)
        turn = TurnTokens(np.array(prompt, np.int32), completion, np.zeros(1, np.float32), images)
        rows += rows_of([turn], episode)
    return rows


class NoImages:
    """A processor whose images have no patches."""

    @staticmethod
    def image_processor(images, return_tensors):
        return {"image_grid_thw": torch.ones(len(images), 3, dtype=torch.long)}


def test_only_what_begins_alike_is_shared():
    rows = rows_with([[1, 2, 3], [1, 2, 9], [4, 5, 6, 7], [4, 5, 6, 7], [8, 8]])
    prompts = SharedPrompts(rows, NoImages, image_token=99)
    assert prompts.lengths == [2, 3]  # the last token of a prompt may differ
    assert [prompts.number(row) for row in rows] == [0, 0, 1, 1, None]
    assert prompts.tensors["input_ids"].tolist() == [[1, 2, 0], [4, 5, 6]]
    assert not SharedPrompts(rows[3:], NoImages, image_token=99)


def test_padding_is_at_the_right():
    ids, mask = pad([np.array([1]), np.array([2, 3])])
    assert ids.tolist() == [[1, 0], [2, 3]] and mask.tolist() == [[1, 0], [1, 1]]
