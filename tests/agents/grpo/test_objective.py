"""The parts of the loss: surrogates, ratios, corrections, and the weights of tokens."""

import math

import numpy as np
import pytest
import torch
from medseg_agents.grpo.errors import LogProbMismatch
from medseg_agents.grpo.objective import (
    StepTotals,
    chat_loss,
    k3,
    mismatch_bound,
    policy_loss,
    require_agreement,
    sampler_correction,
    segment_mean,
    token_weights,
)
from medseg_agents.grpo.settings import ChatSettings


def test_weights_are_those_of_the_papers():
    lengths = [2, 6]
    assert token_weights(lengths, "grpo", 10) == pytest.approx([1 / 4, 1 / 12])
    for kind in ("dapo", "cispo"):
        assert token_weights(lengths, kind, 10) == pytest.approx([1 / 8, 1 / 8])
    assert token_weights(lengths, "dr_grpo", 10) == pytest.approx([1 / 20, 1 / 20])
    assert token_weights(lengths, "bnpo", 10, micro_batches=4) == pytest.approx([1 / 4, 1 / 4])
    with pytest.raises(ValueError, match="no loss type"):
        token_weights(lengths, "best", 10)


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_averaged_over_learners_weights_are_those_of_one(loss_type):
    shares, lengths = ([2, 6, 1], [4]), [2, 6, 1, 4]
    totals = StepTotals(sum(lengths) / 2, len(lengths) / 2, 1)
    by_learner = [token_weights(share, loss_type, 10, totals) / 2 for share in shares]
    whole = token_weights(lengths, loss_type, 10)
    np.testing.assert_allclose(np.concatenate(by_learner), whole, rtol=1e-6)


def objective(log_probs, advantages, low=0.2, high=0.4, **settings):
    """Loss as the mean over tokens that were drawn with log-probability 0."""
    options = ChatSettings(epsilon=low, epsilon_high=high, **settings)
    size = len(advantages)
    batch = {
        "advantages": torch.tensor(advantages),
        "weights": torch.full((size,), 1 / max(1, size)),
        "sampler_log_probs": torch.zeros(size),
        "old_log_probs": torch.zeros(size),
        "row_index": torch.arange(size),
        "turn_index": torch.arange(size),
    }
    out = {"log_probs": log_probs, "entropy": torch.zeros(size)}
    return chat_loss(options, batch, out, 1)


def test_at_first_the_gradient_is_that_of_the_policy_gradient():
    log_probs = torch.zeros(2, requires_grad=True)
    loss, sums = objective(log_probs, [1.0, -3.0])
    loss.backward()
    assert log_probs.grad.tolist() == pytest.approx([-0.5, 1.5])
    assert sums["max_ratio_deviation"] == 0 and sums["clipped"] == 0 and sums["approx_kl"] == 0
    assert sums["logp_difference"] == 0 and sums["importance"] == 2


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
    loss, sums = objective(log_probs, [advantage])
    loss.backward()
    assert (log_probs.grad.item() != 0) is moves
    assert sums["clipped"].item() == (not moves)


@pytest.mark.parametrize("ratio", [1.2, 2.9, 3.1, 50.0])
@pytest.mark.parametrize("advantage", [1.0, -2.0])
def test_delta_is_the_dual_clip_of_ye_et_al(ratio, advantage):
    # Ye et al. 2020, eq. 5: max(min(r A, clip(r) A), c A) where A is negative.
    log_probs = torch.tensor([math.log(ratio)], requires_grad=True)
    loss, sums = objective(log_probs, [advantage], delta=3.0)
    clip = min(max(ratio, 0.8), 1.4)
    plain = min(ratio * advantage, clip * advantage)
    wanted = max(plain, 3.0 * advantage) if advantage < 0 else plain
    assert loss.item() == pytest.approx(-wanted, rel=1e-5)
    loss.backward()
    stopped = (advantage < 0 and ratio > 3) or (advantage > 0 and ratio > 1.4)
    assert (log_probs.grad.item() == 0) is stopped and sums["clipped"].item() == stopped


def test_cispo_keeps_the_gradient_of_tokens_that_others_clip():
    log_probs = torch.tensor([math.log(9.0), math.log(0.5)], requires_grad=True)
    settings = ChatSettings(loss_type="cispo", epsilon_high=5.0)
    losses, sums = policy_loss(settings, log_probs, log_probs.exp(), torch.tensor([1.0, -1.0]))
    losses.sum().backward()
    assert log_probs.grad.tolist() == pytest.approx([-5.0, 0.5])
    assert sums["clipped"] == 1 and sums["clipped_low"] == 0


def test_segments_share_the_mean_and_its_gradient():
    values = torch.tensor([1.0, 3.0, 5.0], requires_grad=True)
    means = segment_mean(values, torch.tensor([1, 1, 0]))
    assert means.tolist() == [2, 2, 5]
    (means * torch.tensor([1.0, 0, 0])).sum().backward()
    assert values.grad.tolist() == [0.5, 0.5, 0]


def test_corrections_are_truncated_by_token_or_by_sequence():
    difference = torch.tensor([0.1, 5.0, -0.2, -0.3])
    by_token = sampler_correction(difference, 2.0)
    assert by_token.tolist() == pytest.approx([math.exp(0.1), 2, math.exp(-0.2), math.exp(-0.3)])
    by_row = sampler_correction(difference, 2.0, torch.tensor([0, 0, 1, 1]))
    assert by_row.tolist() == pytest.approx([2, 2, math.exp(-0.5), math.exp(-0.5)])


def test_the_correction_makes_the_gradient_that_of_the_learners_own_draws():
    # Three tokens: expected over the sampler's draws, corrected gradients are the learner's own.
    logits = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    sampler = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    rewards = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    own = logits.log_softmax(0)
    (true,) = torch.autograd.grad((own.exp() * rewards).sum(), logits, retain_graph=True)
    settings = ChatSettings(tis_cap=100.0)
    size = {"row_index": torch.arange(3), "turn_index": torch.arange(3)}
    batch = {
        **size,
        "advantages": rewards,
        "weights": sampler,  # as often as it draws them
        "sampler_log_probs": sampler.log(),
    }
    loss, sums = chat_loss(settings, batch, {"log_probs": own, "entropy": own}, 1)
    (corrected,) = torch.autograd.grad(-loss, logits)
    torch.testing.assert_close(corrected, true, atol=1e-12, rtol=0)
    assert sums["max_logp_difference"] > 0.1


def test_tokens_that_are_not_there_have_no_loss():
    log_probs = torch.zeros(0, requires_grad=True)
    for level in ("token", "sequence"):
        loss, sums = objective(log_probs, [], importance_sampling_level=level, tis_level="sequence")
        assert loss.item() == 0 and sums["max_logp_difference"] == 0


@pytest.mark.parametrize("by_loss", [False, True])
def test_the_divergence_is_estimated_without_bias_and_never_negative(by_loss):
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.3, 0.2])
    estimates = k3(q.log() - p.log())
    if by_loss:  # p drew the tokens, q is the policy now
        estimates = torch.stack([approx_kl(p[i], q[i]) for i in range(3)])
    assert (estimates >= 0).all()
    exact = (p * (p.log() - q.log())).sum()
    assert (p * estimates).sum().item() == pytest.approx(exact.item(), rel=1e-5)


def approx_kl(drawn, now):
    one = torch.zeros(1, dtype=torch.long)
    batch = {
        **{name: torch.ones(1) for name in ("advantages", "weights")},
        "sampler_log_probs": drawn.log()[None],
        "old_log_probs": drawn.log()[None],
        **{"row_index": one, "turn_index": one},
    }
    out = {"log_probs": now.log()[None], "entropy": torch.ones(1)}
    return chat_loss(ChatSettings(), batch, out, 1)[1]["approx_kl"]


def test_only_a_mean_difference_stops_a_run_and_the_bound_knows_the_type():
    settings = ChatSettings()
    single = mismatch_bound(settings, [torch.float32])
    half = mismatch_bound(settings, [torch.float32, torch.bfloat16])
    assert (single, half) == (1e-4, 0.1)
    assert mismatch_bound(ChatSettings(max_logp_difference=0.5), [torch.float32]) == 0.5
    # One token of a thousand far off, as bfloat16 has it: the run goes on.
    sums = {"logp_difference": 0.05, "max_logp_difference": 0.05, "tokens": 1000.0}
    require_agreement(sums, single, 0)
    for wrong in (3.0, math.nan):
        with pytest.raises(LogProbMismatch, match=r"sampler and learner .*0\.0001 is allowed"):
            require_agreement({**sums, "logp_difference": wrong}, single, 0)
    require_agreement({**sums, "logp_difference": 3.0}, half, 0)
