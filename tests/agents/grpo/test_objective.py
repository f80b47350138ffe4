"""The clipped objective and the weights of tokens."""

import numpy as np
import pytest
import torch
from medseg_agents.grpo.objective import clipped_objective, k3, token_weights


def test_weights_are_those_of_the_papers():
    lengths = [2, 6]
    assert token_weights(lengths, "grpo", 10) == pytest.approx([1 / 4, 1 / 12])
    assert token_weights(lengths, "dapo", 10) == pytest.approx([1 / 8, 1 / 8])
    assert token_weights(lengths, "dr_grpo", 10) == pytest.approx([1 / 20, 1 / 20])
    # Two learners of 8 and 4 tokens: their averaged gradients weigh every token alike.
    assert token_weights(lengths, "dapo", 10, 6.0) == pytest.approx([1 / 6, 1 / 6])


def objective(log_probs, advantages, low=0.2, high=0.4):
    old = torch.zeros(len(advantages))
    weights = torch.full((len(advantages),), 1 / len(advantages))
    return clipped_objective(log_probs, old, torch.tensor(advantages), weights, low, high)


def test_at_first_the_gradient_is_that_of_the_policy_gradient():
    log_probs = torch.zeros(2, requires_grad=True)
    loss, metrics = objective(log_probs, [1.0, -3.0])
    loss.backward()
    assert log_probs.grad.tolist() == pytest.approx([-0.5, 1.5])
    assert (
        metrics["max_ratio_deviation"] == 0
        and metrics["clipped"] == 0
        and metrics["approx_kl"] == 0
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [
        (1.5, 1.0, False),
        (1.3, 1.0, True),
        (0.7, -1.0, False),
        (0.9, -1.0, True),
        (1.5, -1.0, True),
        (0.7, 1.0, True),
    ],
)
def test_beyond_the_bounds_nothing_more_is_gained(ratio, advantage, moves):
    log_probs = torch.tensor([np.log(ratio)], requires_grad=True)
    loss, metrics = objective(log_probs, [advantage])
    loss.backward()
    assert (log_probs.grad.item() != 0) is moves
    assert metrics["clipped"].item() == (not moves)


def test_the_divergence_is_estimated_without_bias_and_never_negative():
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.3, 0.2])
    estimates = k3(q.log() - p.log())
    assert (estimates >= 0).all()
    exact = (p * (p.log() - q.log())).sum()
    assert (p * estimates).sum().item() == pytest.approx(exact.item(), rel=1e-5)
