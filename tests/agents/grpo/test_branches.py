"""Groups that branch from one mid-episode state."""

from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from medseg_agents.grpo.connectors import GROUP, ROWS, TOKENS, TurnsToTokens
from medseg_agents.grpo.metrics import read_result
from medseg_agents.grpo.rollout.branches import BranchPoint, Trunk
from medseg_agents.grpo.rollout.collate import collate
from medseg_agents.grpo.settings import ChatSettings
from medseg_agents.grpo.shared_prompts import SharedPrompts
from medseg_agents.llm.engine import Conversation

from medseg_gym.errors import MedSegError

from .conftest import assert_same_gradients, dealt, learned, weights_of

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


def rows_of(episodes):
    return TurnsToTokens()(rl_module=None, batch={}, episodes=episodes)["default_policy"][ROWS]


def by_group(episodes, rows):
    grouped = defaultdict(list)
    for row in rows:
        grouped[episodes[row.episode].custom_data[GROUP]].append(row)
    return grouped


@pytest.mark.slow
@pytest.mark.parametrize("advantage", ["group", "reward_to_go"])
def test_a_run_with_branches_learns_and_logs_where_they_were(make, advantage):
    algo = make(branch="turn", advantage=advantage)
    before = weights_of(algo)
    for _ in range(2):
        result = algo.train()
        # Sampler and learner agree: the trunk's tokens and images are where they were read.
        assert 0 < learned(result)["sampling/max_ratio_deviation"] < 1e-3
        logged = read_result(result)
        assert all(np.isfinite(value) for value in logged.values()), logged
        assert 0 <= logged["branch/turn"] <= 2 and 0 <= logged["branch/short_trunks"] <= 1
    after = weights_of(algo)
    assert all(torch.isfinite(w).all() for w in after.values())
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_only_tokens_behind_the_branch_are_learned_from(make):
    algo = make(branch="turn", groups=8)
    episodes = algo.env_runner.sample(groups=dealt(algo))
    rows = rows_of(episodes)
    module = algo.own_module()
    image = module.base.config.image_token_id
    turns = set()
    for members in by_group(episodes, rows).values():
        shared = SharedPrompts(members, module.processor, image)
        first = {min(row.prompt_ends.values()) for row in members}
        if len({row.episode for row in members}) == len(members):  # each conversation one row
            # One prompt of the group, all of the conversation that its episodes have in common.
            assert len(first) == 1 and shared.lengths == [first.pop()]
        for row in members:
            episode = episodes[row.episode]
            expected = [t for turn in row.prompt_ends for t in _tokens(episode, turn)]
            assert row.tokens[row.completion_mask].tolist() == expected
            start = min(row.prompt_ends.values())
            assert not row.completion_mask[: start + 1].any()
            before = len(episode.custom_data["images_before"])
            assert row.num_prompt_images == before + 1 + min(row.prompt_ends)
            turns.add(before)
            # The gradient of the loss reaches the model through these places alone.
            tensors = collate([row], module.processor, image, module.shares_images)
            assert int(tensors["logit_index"].min()) == start
    assert len(turns) > 1, "the seed shows no two branch turns"


def _tokens(episode, turn):
    return np.asarray(episode.get_extra_model_outputs(TOKENS, turn)).tolist()


def test_a_group_goes_on_from_one_state_and_one_conversation(make):
    algo = make(branch="turn", groups=8)
    episodes = algo.env_runner.sample(groups=dealt(algo))
    played = algo.env_runner.env.episodes
    size = 4
    for start in range(0, len(episodes), size):
        members = range(start, start + size)
        turn = len(episodes[start].custom_data["images_before"])
        assert all(len(played[s].steps) - len(episodes[s]) == turn for s in members)
        for number in range(turn):
            assert len({id(played[s].steps[number]) for s in members}) == 1
        texts = {episodes[s].get_observations(0)["text"] for s in members}
        assert len(texts) == 1
        # Rewards are those of the episodes' own turns.
        for s in members:
            assert episodes[s].get_rewards() == pytest.approx(played[s].rewards[turn:])
    means = algo.env_runner.get_metrics()
    returns = [sum(episode.rewards) for episode in played]
    assert means["episode_return_mean"].peek() == pytest.approx(np.mean(returns))


def test_branches_depend_on_seed_and_group_alone(make):
    wide, narrow = (make(branch="turn", slots=slots) for slots in (0, 4))
    first, second = (algo.env_runner.sample(groups=dealt(algo, 3)) for algo in (wide, narrow))
    assert len({tuple(episode.get_actions()) for episode in first}) > 4
    for ours, theirs in zip(first, second, strict=True):
        assert ours.get_actions() == theirs.get_actions()
        assert ours.get_rewards() == theirs.get_rewards()


@pytest.mark.slow
def test_sharing_the_trunk_changes_no_gradient(make):
    shared, whole = (make(branch="turn", share_prompts=share) for share in (True, False))
    for algo in (shared, whole):
        algo.train()
    assert_same_gradients(shared, whole)


def test_history_that_is_cut_short_branches_too(make):
    result = make(branch="turn", history="1").train()
    assert 0 < learned(result)["sampling/max_ratio_deviation"] < 1e-3


@pytest.mark.slow
def test_branches_reach_learners_in_other_processes(make):
    alone = make(branch="turn")
    spread = make(branch="turn", runners=1)
    results = [algo.train() for algo in (alone, spread)]
    assert 0 < learned(results[1])["sampling/max_ratio_deviation"] < 1e-3
    for name in ("branch/turn", "episode_return_mean"):
        assert results[0]["env_runners"][name] == pytest.approx(results[1]["env_runners"][name])
    assert_same_gradients(alone, spread)


def grown(seed, length, max_turns=5):
    """A trunk that ends after `length` turns unless its group branches before."""
    image = np.zeros((2, 2, 3), np.uint8)
    conversation = Conversation(np.random.default_rng(0))
    trunk = Trunk(
        BranchPoint(0, conversation, {"text": "", "image": image}),
        np.random.default_rng(seed),
        max_turns,
    )
    while trunk.grows:
        if trunk.newest.turn == length - 1:
            trunk.ended = True
        else:
            shown = {"text": "go on", "image": image}
            trunk.add(trunk.conversation(), shown, {"dice": -0.5}, None)
    return trunk


def test_the_turn_is_uniform_whether_or_not_the_trunk_reaches_it():
    for length in (5, 3, 1):
        trunks = [grown(seed, length) for seed in range(600)]
        points = [trunk.branch_point() for trunk in trunks]
        counts = Counter(point.turn for point in points)
        assert sorted(counts) == list(range(length))
        assert max(counts.values()) < 1.35 * 600 / length
        assert any(trunk.ended for trunk in trunks) == (length < 5)
    point = next(p for p in points[::-1] if p.turn == 0)
    assert point.before == () and not point.terms
    deep = next(p for t in range(99) if (p := grown(t, 5).branch_point()).turn == 3)
    assert len(deep.before) == 3 and deep.terms == {"dice": -1.5}
    assert deep.conversation.dialogue.texts == ["go on"] * 3


def test_a_fork_of_a_conversation_goes_on_by_itself():
    one = Conversation(np.random.default_rng(0))
    one.show("segment", np.zeros((2, 2, 3), np.uint8))
    other = one.fork(np.random.default_rng(1))
    other.show("more", np.ones((2, 2, 3), np.uint8))
    other.dialogue.completions.append("yes")
    other.processed.append(None)
    assert one.dialogue.texts == ["segment"] and not one.dialogue.completions and not one.processed
    assert other.dialogue.images[0] is one.dialogue.images[0]
    assert other.generator.random() == np.random.default_rng(1).random()


def test_one_episode_a_group_has_nothing_to_compare():
    with pytest.raises(MedSegError, match="branch 'turn' compares"):
        ChatSettings(branch="turn", num_generations=1, advantage="gae")
    with pytest.raises(MedSegError, match="branch must be one of"):
        ChatSettings(branch="middle")
