"""The learner's update on episodes, really played by the tiny model, under the options."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from medseg_agents.grpo.connectors import (
    CUT,
    FINAL_PROMPT,
    ROWS,
    TERMS,
    TOKENS,
    GroupAdvantages,
    TurnsToTokens,
)
from medseg_agents.grpo.errors import LogProbMismatch
from medseg_agents.grpo.learner import ITERATION
from medseg_agents.grpo.objective import OverLearners
from medseg_agents.llm.sampling import end_tokens

from medseg_gym.errors import MedSegError

from .conftest import dealt, learned, weights_of

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


def play(algo):
    return algo.env_runner.sample(groups=dealt(algo))


def rows_by(algo, episodes, connector=None):
    """Rows that the learner makes of episodes, through one more connector."""
    batch = TurnsToTokens()(rl_module=None, batch={}, episodes=episodes)
    if connector:
        batch = connector(rl_module=None, batch=batch, episodes=episodes)
    return batch["default_policy"][ROWS]


def update(algo, episodes, **options):
    (result,) = algo.learner_group.update(episodes=episodes, timesteps={ITERATION: 0}, **options)
    return {name: float(value.peek()) for name, value in result["default_policy"].items()}


def disturb(episodes, spread, seed=0):
    """As if another program had drawn the tokens: its log-probabilities differ by some noise."""
    draw = np.random.default_rng(seed)
    for episode in episodes:
        for turn, values in enumerate(episode.extra_model_outputs["token_log_probs"].data):
            noise = draw.normal(0, spread, len(values)).astype(np.float32)
            episode.extra_model_outputs["token_log_probs"].data[turn] = values + noise


def test_single_tokens_far_off_do_not_stop_a_run_and_are_capped(make):
    algo = make(max_logp_difference=0.1)
    episodes = play(algo)
    values = episodes[0].extra_model_outputs["token_log_probs"].data[0]
    values[0] -= 1.5  # one token, which the learner finds 4.5 times as likely
    metrics = update(algo, episodes)
    assert metrics["sampling/sampling_logp_difference/max"] == pytest.approx(1.5, abs=1e-2)
    assert metrics["sampling/sampling_logp_difference/mean"] < 0.05
    assert metrics["sampling/importance_sampling_ratio/mean"] > 1
    tokens = sum(len(t) for e in episodes for t in e.extra_model_outputs[TOKENS].data)
    capped = metrics["sampling/importance_sampling_ratio/capped"]
    assert capped == pytest.approx(1 / tokens)
    # Mismatch is corrected and never clipped: at the first step no ratio differs from 1.
    assert metrics["clip_ratio/region"] == 0
    disturb(episodes, 0.5)
    before = weights_of(algo)
    with pytest.raises(LogProbMismatch, match=r"a mean of 0\.1 is allowed"):
        update(algo, episodes)
    assert all(torch.equal(before[name], value) for name, value in weights_of(algo).items())


def test_bfloat16_runs_within_its_bound(make):
    metrics = learned(make(precision="bfloat16", groups=2).train())
    mean = metrics["sampling/sampling_logp_difference/mean"]
    assert 0 < mean < 0.02  # the bound is 0.1
    assert metrics["sampling/sampling_logp_difference/max"] > 1e-3  # which stopped runs before


@pytest.mark.parametrize("share", [True, False])
def test_several_steps_clip_against_the_learners_own_probabilities(make, share, monkeypatch):
    algo = make(minibatches=2, lr=1e-2, max_logp_difference=1.0, share_prompts=share, beta=0.1)
    learner = algo.learner_group._learner
    episodes = play(algo)
    exact = [row.log_probs.copy() for row in rows_by(algo, episodes)]
    disturb(episodes, 0.1)
    seen = []
    real = learner.compute_loss_for_module

    def watched(**given):
        old = given["batch"].get("old_log_probs")
        seen.append((learner._steps_taken, old, given["fwd_out"]["log_probs"].detach()))
        return real(**given)

    monkeypatch.setattr(learner, "compute_loss_for_module", watched)
    update(algo, episodes, num_epochs=2)
    assert all((old is None) == (step == 0) for step, old, _ in seen)
    # Later steps compare with what the undisturbed sampler said: the same weights, exactly read.
    wanted = np.sort(np.concatenate([row[row != 0] for row in exact]))
    epoch = torch.cat([old for step, old, _ in seen if step >= 2])
    np.testing.assert_allclose(np.sort(epoch), wanted, atol=1e-3)
    second = torch.cat([now if old is None else old for step, old, now in seen if step < 2])
    np.testing.assert_allclose(np.sort(second), wanted, atol=1e-3)
    assert max((now - old).abs().max() for step, old, now in seen if step) > 1e-2


def test_without_a_cap_ratios_are_those_to_the_sampler(make):
    algo = make(tis_cap=None, max_logp_difference=1.0)
    episodes = play(algo)
    disturb(episodes, 0.5)
    metrics = update(algo, episodes)
    assert metrics["clip_ratio/region"] > 0.01
    assert metrics["sampling/importance_sampling_ratio/capped"] == 0


def test_completions_cut_at_the_limit_do_not_teach(make):
    algo = make(mask_truncated_completions=True, max_completion_length=15, groups=2)
    episodes = play(algo)
    module = algo.own_module()
    ends = end_tokens(module.base, module.processor)
    cut = [[bool(c) for c in episode.extra_model_outputs[CUT].data] for episode in episodes]
    for episode, flags in zip(episodes, cut, strict=True):
        for tokens, flag in zip(episode.extra_model_outputs[TOKENS].data, flags, strict=True):
            assert flag == (len(tokens) == 15 and tokens[-1] not in ends)
    assert any(map(any, cut)) and not all(map(all, cut))
    masked = TurnsToTokens(True)(rl_module=None, batch={}, episodes=episodes)
    for row in masked["default_policy"][ROWS]:
        taught = set(row.turns[row.completion_mask].tolist())
        assert taught == {t for t in row.prompt_ends if not cut[row.episode][t]}
    ratio = algo.env_runner.get_metrics()["completion_length/clipped_ratio"].peek()
    assert ratio == pytest.approx(np.mean([flag for flags in cut for flag in flags]))
    assert np.isfinite(update(algo, episodes)["gradients_default_optimizer_global_norm"])


def test_terms_of_the_reward_are_weighed_by_the_run(make):
    algo = make()
    settings, episodes = algo.config.settings, play(algo)
    assert set(episodes[0].get_extra_model_outputs(TERMS, 0)) == {"dice_gain", "cost"}

    def advantages(**options):
        connector = GroupAdvantages(replace(settings, **options), OverLearners())
        return np.concatenate([row.advantages for row in rows_by(algo, episodes, connector)])

    as_paid = advantages()
    weights = ("dice_gain=1", "cost=-1")
    np.testing.assert_allclose(advantages(reward_weights=weights), as_paid, atol=1e-4)
    alone = advantages(reward_weights=("cost=-1",))
    assert np.abs(alone - as_paid).max() > 0.1
    by_term = advantages(reward_weights=weights, multi_objective_aggregation="normalize_then_sum")
    assert np.isfinite(by_term).all() and np.abs(by_term - as_paid).max() > 0.05
    with pytest.raises(MedSegError, match=r"no term 'dice'.*it has: cost, dice_gain"):
        advantages(reward_weights=("dice=1",))


def test_a_truncated_episode_goes_on_from_the_value_it_was_left_with(make, monkeypatch):
    algo = make("ppo", groups=4, scale_rewards="none")
    env = algo.env_runner.env
    step = env.step

    def limited(actions):  # an outer limit of one turn, for every second slot
        observations, rewards, ended, cut, infos = step(actions)
        cut = (np.arange(env.num_envs) % 2 == 0) & ~ended
        return observations, rewards, ended, cut, infos

    monkeypatch.setattr(env, "step", limited)
    episodes = play(algo)
    truncated = [episode.is_truncated for episode in episodes]
    assert any(truncated) and not all(truncated)
    assert [FINAL_PROMPT in e.custom_data for e in episodes] == truncated
    learner = algo.learner_group._learner
    with torch.no_grad():
        algo.own_module().value_head.bias.fill_(0.75)  # of every state
    batch = learner._learner_connector(
        rl_module=learner.module, batch={}, episodes=episodes, shared_data={}, metrics=None
    )
    for row in batch["default_policy"][ROWS]:
        episode, last = episodes[row.episode], max(row.prompt_ends)
        if last == len(episode) - 1:
            beyond = 0.75 if episode.is_truncated else 0.0
            assert row.values[last] == pytest.approx(episode.get_rewards()[-1] + beyond, abs=1e-5)
    # The state after the last turn is read whole: its prompt continues the episode's tokens.
    (final, *_) = [e for e in episodes if e.is_truncated]
    prompt, images = final.custom_data[FINAL_PROMPT]
    assert images == len(final) + 1 and len(prompt) > len(
        final.get_extra_model_outputs("prompt", -1)
    )
    assert np.isfinite(update(algo, episodes)["value_loss"])


def prepare(learner, state, loss_type):
    """Begin again from some weights, with a step that is nearly proportional to the gradient."""
    settings = replace(learner.config.settings, loss_type=loss_type)
    object.__setattr__(learner.config, "settings", settings)
    learner.chat_module.set_state(state)
    for optimiser in learner._named_optimizers.values():
        optimiser.state.clear()
        for group in optimiser.param_groups:
            group["eps"] = 1.0


@pytest.mark.slow
def test_two_learners_learn_what_one_does_from_all_their_groups(make):
    options = {"groups": 4, "num_generations": 2, "entropy": 0.01, "beta": 0.1, "lr": 1.0}
    options["value_lr"] = 1.0
    alone = make("ppo", **options)
    pair = make("ppo", learners=2, **options)
    episodes = play(alone)
    groups = sorted((episodes[i : i + 2] for i in range(0, 8, 2)), key=lambda g: sum(map(len, g)))
    groups = [groups[i] for i in (0, 2, 1, 3)]  # dealt in turn: short ones to the first learner
    tokens = [sum(len(t) for e in g for t in e.extra_model_outputs[TOKENS].data) for g in groups]
    turns = [sum(map(len, group)) for group in groups]
    assert tokens[0] + tokens[2] != tokens[1] + tokens[3]
    assert turns[0] + turns[2] < turns[1] + turns[3]
    state = weights_of(alone)
    state["value_head.bias"] += 0.3
    for loss_type in ("grpo", "dr_grpo", "dapo"):
        prepare(alone.learner_group._learner, state, loss_type)
        pair.learner_group.foreach_learner(lambda one, kind=loss_type: prepare(one, state, kind))
        alone._learn(groups, 1)
        pair._learn(groups, 2)
        wanted = weights_of(alone)
        states = pair.learner_group.foreach_learner(lambda one: one.chat_module.get_state())
        for shared in (state_of.get() for state_of in states):
            for name, value in wanted.items():
                torch.testing.assert_close(shared[name], value, atol=1e-6, rtol=0)
        moved = max((wanted[name] - state[name]).abs().max().item() for name in state)
        assert moved > 1e-3
