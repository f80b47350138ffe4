"""Loss and gradient are those that TRL's own GRPOTrainer computes on the same batch."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from medseg_agents.grpo.objective import chat_loss, token_weights
from medseg_agents.grpo.settings import ChatSettings

pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's own

LENGTHS, WIDTH, MAX_TOKENS = [5, 1, 7, 3], 7, 9


@pytest.fixture
def tokens():
    """Log-probabilities of four completions, B x T, far enough apart that every bound is met."""
    draw = torch.Generator().manual_seed(0)

    def noise(scale, *size):
        return scale * torch.randn(*size, generator=draw, dtype=torch.float64)

    shape = len(LENGTHS), WIDTH
    now = -noise(1.0, *shape).abs() - 0.1
    return SimpleNamespace(
        now=now,
        old=now - noise(0.7, *shape),
        sampler=now - noise(0.9, *shape),
        reference=now - noise(0.5, *shape),
        entropy=noise(1.0, *shape).abs(),
        advantages=torch.tensor([1.0, -0.6, -1.3, 0.4], dtype=torch.float64),
        mask=(torch.arange(WIDTH) < torch.tensor(LENGTHS)[:, None]).double(),
    )


def by_trl(tokens, settings, old, importance):
    """Loss by TRL's method, everything around it given; and its gradient, B x T."""
    from trl import GRPOTrainer

    log_probs = tokens.now.clone().requires_grad_()
    trainer = object.__new__(GRPOTrainer)
    trainer.__dict__.update(
        loss_type=settings.loss_type,
        importance_sampling_level=settings.importance_sampling_level,
        epsilon_low=settings.epsilon,
        epsilon_high=settings.epsilon_high,
        beta=settings.beta,
        args=SimpleNamespace(
            delta=settings.delta,
            use_bias_correction_kl=settings.use_bias_correction_kl,
            steps_per_generation=1,
        ),
        max_completion_length=MAX_TOKENS,
        current_gradient_accumulation_steps=1,
        use_vllm=importance is not None,
        vllm_importance_sampling_correction=True,
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        _entropy_bonus_enabled=settings.entropy != 0,
        use_adaptive_entropy=False,
        entropy_coef=settings.entropy,
        model=SimpleNamespace(training=True),
        accelerator=SimpleNamespace(
            num_processes=1,
            sync_gradients=False,
            gather=lambda value: value,
            reduce=lambda value, reduction: value,
        ),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _get_per_token_logps_and_entropies=lambda *a, **k: (log_probs, tokens.entropy, None),
    )
    ids = torch.zeros(len(LENGTHS), WIDTH, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1] + 1,
        "completion_ids": ids,
        "completion_mask": tokens.mask,
        "advantages": tokens.advantages,
        "ref_per_token_logps": tokens.reference,
        "num_items_in_batch": tokens.mask.sum(),
    }
    if old is not None:
        inputs["old_per_token_logps"] = old
    if importance is not None:
        inputs["importance_sampling_ratio"] = importance
    loss = trainer._compute_loss(None, inputs)
    loss.backward()
    return loss.item(), log_probs.grad, trainer._metrics["train"]


def by_us(tokens, settings, old, sampler):
    """Loss and gradient of the same tokens as one row each."""
    row, place = tokens.mask.nonzero(as_tuple=True)
    log_probs = tokens.now.clone().requires_grad_()
    weights = torch.tensor(
        token_weights(LENGTHS, settings.loss_type, MAX_TOKENS), dtype=torch.float64
    )
    batch = {
        "advantages": tokens.advantages[row],
        "weights": weights[row],
        "row_index": row,
        "turn_index": row,
        "sampler_log_probs": sampler[row, place],
    }
    if old is not None:
        batch["old_log_probs"] = old[row, place]
    out = {"log_probs": log_probs[row, place], "entropy": tokens.entropy[row, place]}
    if settings.beta:
        out["reference_log_probs"] = tokens.reference[row, place]
    loss, sums = chat_loss(settings, batch, out, 1)
    loss.backward()
    return loss.item(), log_probs.grad, sums


CASES = [
    {"loss_type": "grpo"},
    {"loss_type": "grpo", "importance_sampling_level": "sequence"},  # GSPO
    {"loss_type": "grpo", "importance_sampling_level": "sequence", "delta": 1.4},
    {"loss_type": "dapo"},
    {"loss_type": "dapo", "delta": 1.5},
    {"loss_type": "dapo", "entropy": 0.1, "beta": 0.2},
    {"loss_type": "dapo", "beta": 0.2, "use_bias_correction_kl": True},
    {"loss_type": "dr_grpo", "beta": 0.04},
    {"loss_type": "bnpo", "entropy": 0.1},
    {"loss_type": "cispo", "epsilon_high": 1.5},
    {"loss_type": "cispo", "epsilon_high": 1.5, "beta": 0.1, "use_bias_correction_kl": True},
]


def name_of(case):
    return "-".join(str(value) for value in case.values())


@pytest.mark.parametrize("tis", [None, "token", "sequence"])
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_loss_and_gradient_are_those_of_trl(tokens, case, tis):
    settings = ChatSettings(**case, tis_cap=2.0 if tis else None, tis_level=tis or "token")
    importance = None
    if tis:
        difference = (tokens.old - tokens.sampler) * tokens.mask
        if tis == "sequence":
            difference = difference.sum(-1, keepdim=True)
        importance = difference.exp().clamp(max=2.0)
        assert (importance == 2).any() and (importance < 2).any()
    wanted, gradient, metrics = by_trl(tokens, settings, tokens.old, importance)
    # Without a correction the sampler's probabilities are the old ones.
    loss, own, sums = by_us(
        tokens, settings, tokens.old if tis else None, tokens.sampler if tis else tokens.old
    )
    assert loss == pytest.approx(wanted, abs=1e-6)
    torch.testing.assert_close(own, gradient, atol=1e-6, rtol=0)
    assert gradient.abs().max() > 1e-2
    if settings.importance_sampling_level == "token" and settings.loss_type != "cispo":
        count = sum(LENGTHS)
        assert sums["clipped_low"] / count == pytest.approx(metrics["clip_ratio/low_mean"][0])
        assert sums["clipped_high"] / count == pytest.approx(metrics["clip_ratio/high_mean"][0])


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo", "bnpo"])
def test_the_first_step_of_an_iteration_is_that_of_trl(tokens, loss_type):
    settings = ChatSettings(loss_type=loss_type)
    importance = ((tokens.now - tokens.sampler) * tokens.mask).exp().clamp(max=2.0)
    wanted, gradient, _ = by_trl(tokens, settings, None, importance)
    loss, own, sums = by_us(tokens, settings, None, tokens.sampler)
    assert loss == pytest.approx(wanted, abs=1e-6)
    torch.testing.assert_close(own, gradient, atol=1e-6, rtol=0)
    assert sums["clipped"] == 0
