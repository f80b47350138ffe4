"""GRPO and PPO for policies that chat, really trained on a tiny model."""

import numpy as np
import pytest
import ray
import torch
from medseg_agents.grpo import GRPOConfig, learner
from medseg_agents.grpo.case_choice import Group
from medseg_agents.grpo.connectors import GROUP
from medseg_agents.grpo.errors import LogProbMismatch, LostGroups
from medseg_agents.grpo.rollout import collate

from medseg_gym.backbones import EllipseBackbone
from medseg_gym.backbones.remote.ray import serve
from medseg_gym.cases.case_source import CaseList
from medseg_gym.errors import MedSegError

from .conftest import dealt, learned, weights_of

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


class Counting(EllipseBackbone):
    """Counts what it is asked."""

    def __init__(self):
        super().__init__()
        self.decoded, self.encoded = [], 0

    def decode(self, rows):
        self.decoded.append(len(rows))
        return super().decode(rows)

    def encode(self, images):
        self.encoded += len(images)
        return super().encode(images)


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_it_learns_what_pays(make):
    # Enough episodes that the mean of three iterations says more than chance: of 8 a group it moves
    # by as much as is learned, and on some CPUs the wrong way.
    algo = make(groups=5, num_generations=16, iterations=44)
    results = [algo.train() for _ in range(44)]
    returns = [result["env_runners"]["episode_return_mean"] for result in results]
    assert np.mean(returns[-3:]) > np.mean(returns[:3]) + 0.08, returns
    for result in results:
        assert learned(result)["sampling/max_ratio_deviation"] < 1e-3


@pytest.mark.parametrize("history", ["all", "1", "none"])
def test_what_is_learned_from_is_what_was_sampled(make, history):
    algo = make(history=history, temperature=1.3)
    result = algo.train()
    assert 0 < learned(result)["sampling/max_ratio_deviation"] < 1e-3
    assert learned(result)["entropy"] > 0


def wrong_mask(tensors):
    tensors["logit_index"] = tensors["logit_index"].roll(1)


def wrong_padding(tensors):
    tensors["attention_mask"][:, :3] = 0


def wrong_images(tensors):
    tensors["image_index"] = tensors["image_index"].flip(0)


@pytest.mark.parametrize("break_it", [wrong_mask, wrong_padding, wrong_images])
def test_a_learner_that_reads_otherwise_than_the_sampler_is_stopped(make, monkeypatch, break_it):
    right = collate.collate

    def wrong(*arguments, **named):
        tensors = right(*arguments, **named)
        break_it(tensors)
        return tensors

    algo = make()
    monkeypatch.setattr(learner, "collate", wrong)
    with pytest.raises(LogProbMismatch, match="sampler and learner"):
        algo.train()


def test_wrong_positions_are_noticed(make, monkeypatch):
    algo = make()
    episodes = algo.env_runner.sample(groups=dealt(algo))
    inner = algo.own_module().base.model
    real = inner.get_rope_index

    def along_the_text(ids, **named):  # as if images had neither rows nor columns
        return torch.arange(ids.shape[1]).expand(3, *ids.shape), real(ids, **named)[1]

    monkeypatch.setattr(inner, "get_rope_index", along_the_text)
    with pytest.raises(LogProbMismatch, match="sampler and learner"):
        algo.learner_group.update(episodes=episodes, timesteps={})
    monkeypatch.setattr(inner, "get_rope_index", real)
    (result,) = algo.learner_group.update(episodes=episodes, timesteps={})
    assert float(result["default_policy"]["sampling/max_ratio_deviation"].peek()) < 1e-3


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers(make):
    first, second, other = make(seed=3), make(seed=3), make(seed=4)
    for _ in range(2):
        results = [algo.train() for algo in (first, second, other)]
    returns = [r["env_runners"]["episode_return_mean"] for r in results]
    assert returns[0] == returns[1] != returns[2]
    assert same(weights_of(first), weights_of(second))
    assert not same(weights_of(first), weights_of(other))


def test_gradients_do_not_depend_on_how_they_are_accumulated(make):
    whole, parts = make(micro_batch=64), make(micro_batch=3)
    norms = [
        learned(algo.train())["gradients_default_optimizer_global_norm"] for algo in (whole, parts)
    ]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


@pytest.mark.slow
def test_a_saved_algorithm_goes_on_as_if_nothing_had_happened(make, tmp_path):
    whole, begun, again = make(iterations=3), make(iterations=3), make(iterations=3)
    for _ in range(3):
        wanted = whole.train()
    begun.train()
    begun.save_to_path(str(tmp_path))
    again.restore_from_path(str(tmp_path))
    for _ in range(2):
        resumed = again.train()
    assert resumed["training_iteration"] == 3
    assert (
        resumed["env_runners"]["episode_return_mean"]
        == (wanted["env_runners"]["episode_return_mean"])
    )
    assert same(weights_of(whole), weights_of(again))


def test_one_decoder_call_a_turn_and_one_encode_an_image(make, small_cases):
    backbone = Counting()
    algo = make(env={"backbone": backbone}, groups=5)
    result = algo.train()
    played = result["env_runners"]
    assert len(backbone.decoded) <= 3  # turns that decode at all: stops need none
    assert max(backbone.decoded) > 4  # and several slots share a call
    images = {case.content_hash for case in small_cases}
    assert backbone.encoded == played["encodes"] == len(images) < 5 * 4


def test_slots_may_be_fewer_than_episodes_and_groups_stay_whole(make):
    algo = make(groups=4)
    episodes = algo.env_runner.sample(groups=dealt(algo))
    assert [e.custom_data[GROUP] for e in episodes] == [i // 4 for i in range(16)]
    fewer = make(groups=4, slots=8)  # two groups at a time
    again = fewer.env_runner.sample(groups=dealt(fewer))
    assert fewer.env_runner.num_envs == 8
    assert [e.get_actions(0) for e in again] == [e.get_actions(0) for e in episodes]


def test_a_cut_group_is_no_group(make):
    algo = make()
    episodes = algo.env_runner.sample(groups=dealt(algo))
    with pytest.raises(LostGroups, match="cut between runner and learner"):
        algo.learner_group.update(episodes=episodes[:-1], timesteps={})
    with pytest.raises(ValueError, match="whole groups"):
        algo.env_runner.sample(num_episodes=4)


def test_cases_come_round_before_any_comes_again(make, small_cases):
    algo = make()
    keys = [group.key for n in range(5) for group in dealt(algo, n)]
    for start in range(0, 20, 5):
        assert sorted(keys[start : start + 5]) == sorted(case.key for case in small_cases)
    assert dealt(algo, 1)[0] == Group(4, keys[4])


def test_turns_have_advantages_of_their_own_under_ppo(make):
    algo = make("ppo", critic_warmup=2, minibatches=2, iterations=6)
    start = weights_of(algo)
    first = algo.train()
    after = weights_of(algo)
    heads = [name for name in start if name.startswith("value_head")]
    assert heads and not any(torch.equal(start[n], after[n]) for n in heads)
    assert all(torch.equal(start[n], after[n]) for n in start if n not in heads)
    results = [algo.train() for _ in range(5)]
    assert not same(after, weights_of(algo))
    assert learned(results[-1])["value_loss"] < learned(first)["value_loss"]
    # Of values before the update, which were all 0, however many steps the update took.
    assert learned(first)["explained_variance"] <= 0
    assert learned(results[-1])["sampling/max_ratio_deviation"] < 1e-3


def test_the_value_head_has_a_rate_of_its_own(make, tmp_path):
    options = {"lr": 1e-6, "value_lr": 2e-3, "critic_warmup": 0, "iterations": 4, "warmup": 2}
    algo, again = (make("ppo", **options) for _ in range(2))

    def rates(algo):
        (optimiser,) = algo.learner_group._learner._named_optimizers.values()
        return [group["lr"] for group in optimiser.param_groups]

    start = weights_of(algo)
    algo.train()
    assert rates(algo) == pytest.approx([0.5e-6, 1e-3])  # half, in the first of two of the rise
    moved = {name: float((weights_of(algo)[name] - start[name]).abs().max()) for name in start}
    heads = {name: moved.pop(name) for name in list(moved) if name.startswith("value_head")}
    assert max(moved.values()) < 2e-6 and min(heads.values()) > 5e-4
    algo.save_to_path(str(tmp_path))
    again.restore_from_path(str(tmp_path))
    for one in (algo, again):
        one.train()
    assert rates(again) == rates(algo) == pytest.approx([1e-6, 2e-3])
    assert same(weights_of(algo), weights_of(again))


def test_adapters_learn_and_travel_alone(make):
    algo = make(lora_rank=4, beta=0.1, lr=1e-2)
    state = weights_of(algo)
    assert all("lora" in name for name in state)
    first, second = learned(algo.train()), learned(algo.train())
    assert abs(first["kl"]) < 1e-5 < second["kl"]
    assert not same(state, weights_of(algo))


@pytest.mark.parametrize(
    "settings",
    [
        {"loss_type": "grpo", "entropy": 0.01, "beta": 0.1},
        {"loss_type": "dr_grpo", "scale_rewards": "none", "advantage": "reward_to_go"},
        {"precision": "bfloat16", "train_vision": False},
        {"gradient_checkpointing": True, "minibatches": 2, "importance_sampling_level": "turn"},
        {"loss_type": "cispo", "epsilon_high": 5.0, "advantage": "batch", "num_generations": 1},
    ],
)
def test_settings_of_the_literature_train(make, settings):
    algo = make(**settings)
    before = weights_of(algo)
    result = learned(algo.train())
    assert np.isfinite(result["gradients_default_optimizer_global_norm"])
    assert not same(before, weights_of(algo))
    if not settings.get("train_vision", True):
        assert not any(".visual." in name for name in before)


def test_any_reward_of_the_suite_is_learned_from(make):
    result = make(env={"reward": "medsam_agent"}).train()
    assert np.isfinite(result["env_runners"]["episode_return_mean"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"groups": 3, "minibatches": 2}, "groups stay whole"),
        ({"num_generations": 1}, "at least 2"),
        ({"advantage": "best"}, "advantage must be one of"),
        ({"temperature": 0}, "temperature must be > 0"),
        ({"scale_rewards": True}, "scale_rewards must be one of"),
        ({"loss_type": "cispo"}, "give epsilon_high=5"),
        ({"delta": 1.1}, r"above 1 \+ epsilon_high"),
        ({"tis_cap": 0.5}, "at least 1"),
        ({"reward_weights": ("dice_gain",)}, "TERM=WEIGHT"),
        ({"reward_weights": ("cost=1", "cost=2")}, "two weights"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "reward_weights: give some"),
    ],
)
def test_settings_that_cannot_be_are_named(settings, words):
    with pytest.raises(MedSegError, match=words):
        GRPOConfig().chat(**settings)


def test_slots_and_learners_must_fit_whole_groups(caller, small_cases):
    config = GRPOConfig().environment(env_config={"cases": CaseList(small_cases)})
    config.chat(model=str(caller), num_generations=4, groups=3)
    with pytest.raises(MedSegError, match="multiple of learners"):
        config.learners(num_learners=2).validate()
    config.learners(num_learners=0).env_runners(num_envs_per_env_runner=6)
    with pytest.raises(MedSegError, match="slots of a runner"):
        config.validate()


@pytest.mark.slow
def test_two_runners_and_two_learners_agree(make):
    server = serve("chat-runners", "ellipse", num_cpus=0)  # the cluster has four
    algo = make(runners=2, learners=2, env={"backbone": "ray:chat-runners"})
    for _ in range(2):
        result = algo.train()
    learners = algo.learner_group.foreach_learner(
        lambda one: {k: v.clone() for k, v in one.chat_module.get_state().items()}
    )
    first, second = (one.get() for one in learners)
    assert same(first, second)
    runners = algo.env_runner_group.foreach_env_runner(
        lambda one: one.module.get_state(), local_env_runner=False
    )
    assert len(runners) == 2 and all(same(first, one) for one in runners)
    assert result["groups_lost"] == 0 and learned(result)["sampling/max_ratio_deviation"] < 1e-3
    assert result["env_runners"]["num_episodes"] == 16
    # Two learners learn as one: rounding apart, from the same draws.
    alone = make()
    for _ in range(2):
        alone.train()
    for name, value in weights_of(alone).items():
        torch.testing.assert_close(first[name], value, atol=2e-3, rtol=0.1)
    records, image = algo.validate_cases(list(alone._choice.keys), "train", drawn=1)
    # A runner that dies takes its groups with it, whole, and comes back.
    ray.kill(algo.env_runner_group._worker_manager.actors()[1])
    lost = [algo.train()["groups_lost"] for _ in range(4)]
    assert sum(lost) in (0, 2, 4) and lost[-1] == 0
    del server
    assert len(records) == 5 and image.startswith(b"\x89PNG")
