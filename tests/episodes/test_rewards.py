"""Rewards: small objects over an Episode; stored episodes are re-scored exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym.backbones import EllipseBackbone
from medseg_gym.cases import CaseError
from medseg_gym.episodes import EpisodeEngine, EpisodeError, rewards
from medseg_gym.errors import MedSegError, PromptError
from medseg_gym.object_paths import absolute_files
from medseg_gym.prompts import AddBox, AddPoint, Clear, Stop, Undo

ELLIPSE = EllipseBackbone()
BOX, CLICK = AddBox(0, 0, 0.5, 1), AddPoint(0.6, 0.4)
TRUTH = np.array([[1, 1, 0], [1, 0, 0]], bool)
NOTHING = np.zeros_like(TRUTH)
HALF = np.array([[1, 0, 0], [0, 0, 0]], bool)
ACTIONS = st.one_of(
    st.from_type(AddBox),
    st.from_type(AddPoint),
    st.sampled_from([Undo(), Clear(), Undo(), Clear(), Stop(), None, PromptError("unreadable")]),
)


@dataclass(frozen=True)
class IouLevel:
    """A reward of one's own: the IoU now, by step."""

    weight: float = 1.0

    def __call__(self, episode):
        value = self.weight * episode.iou / len(episode.steps)
        return rewards.RewardValue(value, {"iou_level": value, "cost": 0.0})


@pytest.fixture
def forgetful():
    """Forget after each test what it registered."""
    with rewards.registry.REWARDS.temporarily():
        yield


def values(reward, masks, prompts, truth=TRUTH):
    return [value for value, _ in rewards.score_episode(reward, masks, truth, prompts)]


def test_dice_gain_by_example():
    prompts = [BOX, CLICK, Undo(), None, Clear(), Undo(), Stop()]
    masks = [HALF, TRUTH, HALF, HALF, NOTHING, HALF]
    gains = [0.5, 0.5, -0.5, 0, -0.5, 0.5]
    expected = [gain - 0.01 for gain in gains] + [0.0]
    assert values("dice_gain", masks, prompts) == pytest.approx(expected)
    scored = rewards.score_episode(rewards.DiceGain(0.1), masks, TRUTH, prompts)
    assert [terms["cost"] for _, terms in scored] == [0.1] * 6 + [0.0]
    assert [terms["dice_gain"] for _, terms in scored] == pytest.approx([*gains, 0])
    assert all(value == terms["dice_gain"] - terms["cost"] for value, terms in scored)


def test_spoiling_and_mending_a_mask_earns_nothing():
    prompts, masks = [BOX, CLICK, CLICK, CLICK], [TRUTH, NOTHING, TRUTH, NOTHING]
    assert sum(values(rewards.DiceGain(0), masks[:3], prompts[:3])) == pytest.approx(1)
    assert sum(values(rewards.DiceGain(0), masks, prompts)) == pytest.approx(0)


def test_an_absent_target_is_best_left_alone():
    assert values("dice_gain", [], [Stop()], truth=NOTHING) == [0.0]
    assert values("dice_gain", [HALF], [BOX], truth=NOTHING) == [-1.01]
    assert values("dice_gain", [NOTHING], [BOX], truth=NOTHING) == [-0.01]


@given(st.integers(0, 4), st.lists(ACTIONS, min_size=1, max_size=8), st.booleans())
def test_stored_masks_give_the_rewards_of_the_engine_exactly(small_cases, which, actions, own):
    reward = IouLevel(0.7) if own else "dice_gain"
    engine = EpisodeEngine(ELLIPSE, reward=reward, max_steps=len(actions))
    (episode,) = engine.reset([0], [small_cases[which]])
    earned = []
    for action in actions:
        if not episode.done:
            earned.append(engine.step([0], [action])[0])
    masks = [s.state.mask.numpy() for s in episode.steps if s.effect != "stop"]
    prompts = [step.prompt for step in episode.steps]
    scored = rewards.score_episode(reward, masks, small_cases[which].mask, prompts)
    assert [value for value, _ in scored] == [result.reward for result in earned]
    for (_, terms), result in zip(scored, earned, strict=True):
        assert terms == {key: result.info[key] for key in terms}


@pytest.mark.parametrize(
    ("prompts", "masks", "words"),
    [
        ([BOX, CLICK], [HALF], "step 1 has no mask: 1 masks were given"),
        ([BOX, Stop()], [HALF, HALF], "2 masks for 2 prompts: too many"),
        ([BOX], [], "step 0 has no mask"),
        ([], [HALF], "too many"),
        ([None], [HALF], r"mask of step 0 \(unreadable, invalid\) differs"),
        ([BOX, Undo()], [HALF, HALF], r"step 1 \(undo, restore\) differs .*undo restores"),
        ([BOX, Clear()], [HALF, HALF], r"step 1 \(clear, clear\) differs .*clear empties"),
        ([BOX, Undo(), Undo()], [HALF, NOTHING, HALF], r"step 2 \(undo, invalid\) differs"),
        ([AddBox(0, 0, 0, 1)], [HALF], r"step 0 \(box, invalid\) differs"),
        ([BOX], [HALF.astype(np.uint8)], r"mask of step 0 is uint8 \(2, 3\), expected bool"),
        ([BOX], [HALF.T], r"mask of step 0 is bool \(3, 2\), expected bool \(2, 3\)"),
        ([Stop(), BOX], [HALF], "is over"),
    ],
)
def test_a_record_that_contradicts_the_rules_is_refused(prompts, masks, words):
    with pytest.raises(EpisodeError, match=words):
        values("dice_gain", masks, prompts)


def test_the_truth_must_be_a_bool_mask():
    with pytest.raises(CaseError, match="mask must be a bool array"):
        values("dice_gain", [HALF], [BOX], truth=TRUTH.astype(np.uint8))


def test_nothing_happened_is_worth_nothing():
    assert values("dice_gain", [], []) == []


def test_rewards_by_name(forgetful):
    assert rewards.make("dice_gain") == rewards.DiceGain(0.01)
    assert rewards.make("dice_gain", step_penalty=0.2) == rewards.DiceGain(0.2)
    rewards.register("iou_level", IouLevel)
    assert rewards.make("iou_level", weight=3) == IouLevel(3)
    assert values("iou_level", [HALF, TRUTH], [BOX, CLICK]) == pytest.approx([1 / 3, 1 / 2])


def test_a_reward_object_is_taken_as_it_is():
    own = IouLevel(2)
    assert rewards.make(own) is own
    assert EpisodeEngine(ELLIPSE, reward=own).reward is own


def test_misuse_is_refused(forgetful):
    with pytest.raises(MedSegError, match=r"unknown reward 'dice'.*; known: dice_gain"):
        rewards.make("dice")
    with pytest.raises(MedSegError, match="'dice_gain' is registered already"):
        rewards.register("dice_gain", IouLevel)
    with pytest.raises(MedSegError, match="options go with a reward's name"):
        rewards.make(IouLevel(), weight=2)


@pytest.mark.parametrize("place", ["my - own (2)", "C:", "\u00fc"])
def test_a_formula_holds_files_of_any_folder(place, tmp_path, monkeypatch):
    """Blanks and marks in a path are no operators; a drive's colon does not end a name."""
    monkeypatch.chdir(tmp_path)
    text = f"{place}/own_pay.py" if place != "C:" else r"C:\own_pay.py"
    file = tmp_path / text
    file.parent.mkdir(exist_ok=True)
    file.write_text("def pay(episode, weight=1.0):\n    return weight * episode.iou\n")
    assert values(f"{text}:pay", [TRUTH], [BOX]) == [1.0]
    formula = f"0.5 * {text}:pay?weight=4 + dice_gain - {text}:pay"
    assert values(formula, [TRUTH], [BOX]) == pytest.approx([0.5 * 4 + 0.99 - 1])
    if place != "C:":  # as worker processes get it
        assert values(absolute_files(formula), [TRUTH], [BOX]) == pytest.approx([1.99])
