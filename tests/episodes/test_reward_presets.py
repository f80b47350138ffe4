"""medsam_agent and ibis_agent against slow implementations of their formulas; mixtures."""

from __future__ import annotations

import operator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medseg_gym.backbones import EllipseBackbone
from medseg_gym.episodes import EpisodeEngine, rewards
from medseg_gym.episodes.rewards import (
    DiceGain,
    Format,
    IbisAgent,
    MedSamAgent,
    Mixture,
    RewardValue,
    StopRegret,
)
from medseg_gym.errors import MedSegError, PromptError
from medseg_gym.prompts import AddBox, AddPoint, Clear, Stop, Undo

ELLIPSE = EllipseBackbone()
BOX, FLAT_BOX, CLICK = AddBox(0, 0, 0.5, 1), AddBox(0, 0.5, 1, 0.5), AddPoint(0.6, 0.4)
SHAPE = (3, 4)
NOTHING = np.zeros(SHAPE, bool)
MASKS = arrays(bool, SHAPE, elements=st.booleans()) | st.just(NOTHING)
ACTIONS = st.one_of(
    st.from_type(AddPoint),
    st.from_type(AddBox),
    st.sampled_from([BOX, FLAT_BOX, Undo(), Clear(), None, Stop()]),
)
NAMES = [*rewards.names(), "dice_gain + 0.2 * format", "0.5 * ibis_agent - 2 * medsam_agent"]
INFO = {"dice", "iou", "case", "tool", "valid", "error", "stopped"}


@st.composite
def recorded(draw, truths=MASKS):
    """A truth, the prompts of an episode and the mask after each that is not a Stop."""
    truth = draw(st.just(NOTHING) | truths)
    prompts, masks, past, now = [], [], [], (NOTHING, False)  # mask, whether prompts are in force
    for prompt in draw(st.lists(ACTIONS, min_size=1, max_size=9)):
        prompts.append(prompt)
        if prompt == Stop():
            break
        if isinstance(prompt, AddPoint) or (isinstance(prompt, AddBox) and not prompt.is_empty):
            past.append(now)
            now = (draw(st.just(truth) | MASKS), True)
        elif prompt == Clear() and now[1]:
            past.append(now)
            now = (NOTHING, False)
        elif prompt == Undo() and past:
            now = past.pop()
        masks.append(now[0])
    return truth, prompts, masks


def pixels(mask):
    return {(r, c) for r, row in enumerate(mask.tolist()) for c, bit in enumerate(row) if bit}


def iou_dice(mask, truth):
    p, t = pixels(mask), pixels(truth)
    if not p and not t:
        return Fraction(1), Fraction(1)
    return Fraction(len(p & t), len(p | t)), Fraction(2 * len(p & t), len(p) + len(t))


def slow_medsam_agent(truth, prompts, masks):
    """The page, line by line."""
    an_add = any(type(p) in (AddBox, AddPoint) for p in prompts)
    last_is_stop = type(prompts[-1]) is Stop
    if an_add and last_is_stop:
        form = Fraction(1)
    elif an_add or last_is_stop:
        form = Fraction(1, 2)
    else:
        form = Fraction(0)
    masks = masks or [NOTHING]
    scores = [iou_dice(mask, truth) for mask in masks]
    last_iou, last_dice = scores[-1]
    base = (last_iou + last_dice) / 2 if last_dice > 0 else last_iou
    count = len(masks)
    overshoot = cost = bonus = Fraction(0)
    if count > 1:
        overshoot = max(i for i, _ in scores) - last_iou
        if overshoot < Fraction(1, 10**6):
            overshoot = Fraction(0)
        cost = Fraction(count, 100)
        for t in range(1, count):
            rise = scores[t][0] - scores[t - 1][0]
            if rise > 0:
                bonus += rise / 10
    quality = base - overshoot - cost + bonus
    quality = 0 if quality < 0 else 1 if quality > 1 else quality
    names = ("format", "base", "overshoot", "turn_cost", "bonus", "quality")
    values = (form, base, overshoot, cost, bonus, quality)
    return form / 5 + quality * Fraction(4, 5), dict(zip(names, values, strict=True))


def slow_ibis_agent(truth, prompts, masks):
    """The page, step by step; masks of the steps, a Stop's being the one before it."""
    actual, before = [], NOTHING
    for n, prompt in enumerate(prompts, start=1):
        after = before if type(prompt) is Stop else masks[n - 1]
        iou, previous = iou_dice(after, truth)[0], iou_dice(before, truth)[0]
        if iou > Fraction(8, 10):
            tier = 3
        elif iou > Fraction(7, 10):
            tier = 2
        else:
            tier = 1 if iou > Fraction(1, 2) else 0
        click = 0
        if type(prompt) is AddPoint:
            row = min(int(prompt.y * SHAPE[0]), SHAPE[0] - 1)
            column = min(int(prompt.x * SHAPE[1]), SHAPE[1] - 1)
            missed, false = pixels(truth) - pixels(before), pixels(before) - pixels(truth)
            click = 1 if (row, column) in (missed if prompt.positive else false) else -1
        length = 1 if n <= 5 else Fraction(-(n - 5), 5)
        terms = (int(prompt is not None), tier, click, int(iou > previous), length)
        actual.append((Fraction(sum(terms)) / 5, terms))
        before = after
    return actual


@given(recorded())
@settings(max_examples=500)
def test_medsam_agent_is_the_formula(episode):
    truth, prompts, masks = episode
    *early, last = rewards.score_episode("medsam_agent", masks, truth, prompts)
    assert all(value == 0 and not any(terms.values()) for value, terms in early)
    value, terms = slow_medsam_agent(truth, prompts, masks)
    assert last.value == pytest.approx(float(value), abs=1e-9)
    assert last.terms == pytest.approx({k: float(v) for k, v in terms.items()}, abs=1e-9)


@given(recorded())
@settings(max_examples=500)
def test_ibis_agent_is_the_formula(episode):
    truth, prompts, masks = episode
    scored = rewards.score_episode("ibis_agent", masks, truth, prompts)
    for got, (value, terms) in zip(scored, slow_ibis_agent(truth, prompts, masks), strict=True):
        assert got.value == pytest.approx(float(value), abs=1e-9)
        assert list(got.terms) == ["format", "iou_tier", "click", "iou_rise", "length"]
        assert list(got.terms.values()) == pytest.approx([float(term) for term in terms])


HALF = np.zeros(SHAPE, bool)
HALF[0, :2] = True
TRUTH = HALF.copy()
TRUTH[1, :2] = True


@pytest.mark.parametrize(
    ("prompts", "masks", "score"),
    [
        ([BOX, Stop()], [TRUTH], 1.0),
        ([BOX], [TRUTH], 0.9),  # no stop
        ([BOX, CLICK, Stop()], [HALF, TRUTH], 1.0),  # the bonus pays for the turn, the clip cuts
        ([BOX, CLICK, Stop()], [TRUTH, HALF], 0.2 + 0.8 * ((0.5 + 2 / 3) / 2 - 0.5 - 0.02)),
        ([None, None, Stop()], [NOTHING] * 2, 0.1),
        ([None, None], [NOTHING] * 2, 0.0),
        ([FLAT_BOX, Stop()], [NOTHING], 0.2),  # a call, though of no use
        ([Stop()], [], 0.1),
    ],
)
def test_medsam_agent_by_example(prompts, masks, score):
    assert rewards.score_episode("medsam_agent", masks, TRUTH, prompts)[-1].value == (
        pytest.approx(score)
    )


def test_weights_are_fields():
    scored = rewards.score_episode(
        MedSamAgent(format_weight=1, quality_weight=0), [HALF], TRUTH, [BOX, Stop()]
    )
    assert scored[-1].value == 1
    reward = rewards.make("ibis_agent", tiers=(0.4,), free_steps=0, length_penalty=2)
    ((_, terms),) = rewards.score_episode(reward, [HALF], TRUTH, [BOX])
    assert terms["iou_tier"] == 1 and terms["length"] == -2


# no target ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "reward",
    [
        *("dice_gain", "format", "stop_regret", "dice_gain + 0.2 * format"),
        "medsam_agent?absent_needs_prompt=0",
    ],
)
@given(recorded(truths=st.just(NOTHING)))
def test_nothing_beats_stopping_at_once_where_there_is_no_target(reward, episode):
    truth, prompts, masks = episode
    best = rewards.score_episode(reward, [], truth, [Stop()])[0].value
    assert sum(v for v, _ in rewards.score_episode(reward, masks, truth, prompts)) <= best + 1e-12


@given(recorded(truths=st.just(NOTHING)))
def test_no_step_on_average_beats_stopping_at_once_for_ibis_agent(episode):
    _, prompts, masks = episode
    scored = rewards.score_episode("ibis_agent", masks, NOTHING, prompts)
    assert sum(v for v, _ in scored) / len(scored) <= 1 + 1e-12
    assert rewards.score_episode("ibis_agent", [], NOTHING, [Stop()])[0].value == pytest.approx(1)


def test_the_published_format_takes_half_from_stopping_at_once():
    assert rewards.score_episode("medsam_agent", [], NOTHING, [Stop()])[0].value == (
        pytest.approx(0.9)
    )


# exactness ------------------------------------------------------------------------------------
LIVE = ACTIONS | st.just(PromptError("unreadable"))


@pytest.mark.parametrize("reward", NAMES)
@given(st.integers(0, 4), st.lists(LIVE, min_size=1, max_size=7), st.integers(0, 2))
@settings(max_examples=40)
def test_stored_masks_give_the_rewards_of_the_engine(small_cases, reward, which, actions, unused):
    steps = len(actions) + unused
    engine = EpisodeEngine(ELLIPSE, reward=reward, max_steps=steps)
    (episode,) = engine.reset([0], [small_cases[which]])
    earned = [engine.step([0], [action])[0] for action in actions if not episode.done]
    masks = [s.state.mask.numpy() for s in episode.steps if s.effect != "stop"]
    prompts = [step.prompt for step in episode.steps]
    scored = rewards.score_episode(reward, masks, small_cases[which].mask, prompts, steps)
    assert [value for value, _ in scored] == [result.reward for result in earned]
    for (_, terms), result in zip(scored, earned, strict=True):
        assert terms == {key: result.info[key] for key in terms}
        assert not INFO & set(terms)
        assert all(type(term) is float for term in terms.values())
        assert set(terms) == set(scored[0].terms)  # the same in every step


@pytest.mark.parametrize("reward", ["medsam_agent", "format", "stop_regret"])
def test_an_episode_cut_short_from_outside_is_not_paid(reward):
    masks, prompts = [TRUTH, HALF], [BOX, CLICK]
    paid = rewards.score_episode(reward, masks, TRUTH, prompts)
    unpaid = rewards.score_episode(reward, masks, TRUTH, prompts, max_steps=3)
    assert paid[-1].value != 0 and [value for value, _ in unpaid] == [0, 0]


def test_format_and_stop_regret_by_example():
    def last(reward, prompts, masks, truth=TRUTH):
        return rewards.score_episode(reward, masks, truth, prompts)[-1].value

    assert last("format", [BOX, Stop()], [HALF]) == 1
    assert last("format", [BOX], [HALF]) == last("format", [Stop()], []) == 0.5
    assert last("format", [None], [NOTHING]) == 0
    assert last("format", [Stop()], [], NOTHING) == 1
    assert last(Format(absent_needs_prompt=True), [Stop()], [], NOTHING) == 0.5
    assert last("stop_regret", [BOX, CLICK], [TRUTH, HALF]) == pytest.approx(2 / 3 - 1)
    assert last("stop_regret", [BOX, CLICK], [HALF, TRUTH]) == 0


# mixtures -------------------------------------------------------------------------------------
PARTS = st.sampled_from([DiceGain(), DiceGain(0.3), Format(), MedSamAgent(), IbisAgent()])
WEIGHTS = st.floats(-3, 3)


def values(reward, episode):
    truth, prompts, masks = episode
    return np.array([v for v, _ in rewards.score_episode(reward, masks, truth, prompts)])


@given(recorded(), PARTS, PARTS, PARTS, WEIGHTS, WEIGHTS)
def test_mixtures_are_linear(episode, a, b, c, v, w):
    one, two, three = (values(part, episode) for part in (a, b, c))
    close = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(values(v * a + b * w, episode), v * one + w * two, **close)
    np.testing.assert_allclose(values(w * (a - v * b) - c, episode), w * (one - v * two) - three,
                               **close)  # fmt: skip
    np.testing.assert_allclose(values(-(a + b + c), episode), -(one + two + three), **close)
    np.testing.assert_array_equal(values(a + b, episode), values(b + a, episode))


@pytest.mark.parametrize(
    ("formula", "made"),
    [
        ("dice_gain + 0.2 * format", DiceGain() + 0.2 * Format()),
        ("dice_gain+format*.2", DiceGain() + 0.2 * Format()),
        (" 0.5 * (dice_gain - 2 * stop_regret) ", 0.5 * (DiceGain() - 2 * StopRegret())),
        ("-dice_gain?step_penalty=0.3", -DiceGain(0.3)),
        ("2 * 3 * ibis_agent?tiers=0.5+0.9", 6 * IbisAgent(tiers=(0.5, 0.9))),
        ("dice_gain?step_penalty=0", DiceGain(0)),
        ("(dice_gain?step_penalty=1e-3)-2e-1*format", DiceGain(1e-3) - 0.2 * Format()),
    ],
)
def test_formulas(formula, made):
    assert rewards.make(formula) == made
    assert EpisodeEngine(ELLIPSE, reward=formula).reward == made


def terms_of(reward):
    scored = rewards.score_episode(reward, [HALF], TRUTH, [BOX, Stop()])
    return [terms for _, terms in scored]


def test_terms_of_a_mixture_are_raw_and_its_cost_is_what_it_cost():
    first, last = terms_of("0.5 * dice_gain?step_penalty=0.1 + 0.2 * format + 2 * dice_gain")
    assert first["dice_gain/dice_gain"] == first["dice_gain_2/dice_gain"] == pytest.approx(2 / 3)
    assert first["cost"] == pytest.approx(0.5 * 0.1 + 2 * 0.01) and last["cost"] == 0
    assert (first["format"], last["format"]) == (0, 1)
    assert set(first) == {"dice_gain/dice_gain", "dice_gain_2/dice_gain", "format", "cost"}


def test_names_that_collide_are_prefixed():
    *_, last = terms_of("medsam_agent + format + ibis_agent")
    prefixed = {"medsam_agent/format", "format/format", "ibis_agent/format"}
    assert prefixed <= set(last) and "format" not in last and "quality" in last
    assert "cost" not in last


def shaped(episode):
    """A reward of one's own, a plain function."""
    return RewardValue(float(len(episode.steps)), {"cost": 0.5, "format": 7.0})


def test_a_plain_function_can_be_mixed():
    for mixture in (Format() + shaped, shaped + Format()):
        assert terms_of(mixture)[-1] == {"shaped/format": 7.0, "format/format": 1.0, "cost": 0.5}
    np.testing.assert_array_equal(values(shaped - Format(), (TRUTH, [BOX, Stop()], [HALF])), [1, 1])
    np.testing.assert_array_equal(values(Format() - shaped, (TRUTH, [Stop()], [])), [-0.5])
    with rewards.registry.REWARDS.temporarily():
        rewards.register("shaped", lambda: shaped)
        assert rewards.make("2 * shaped + format").parts == ((2.0, shaped), (1.0, Format()))


OWN = """
from dataclasses import dataclass
from medseg_gym.episodes.rewards import ComposableReward, RewardValue
def steps(episode, *, each: float = 1.0):
    return RewardValue(each * len(episode.steps), {})
def two(episode, other):
    return RewardValue(0.0, {})
@dataclass(frozen=True)
class Level(ComposableReward):
    weight: int = 1
    def __call__(self, episode):
        return RewardValue(self.weight * episode.dice, {})
limit = 3
"""


def test_rewards_of_a_file_by_their_path(tmp_path):
    for file in (tmp_path / "own.py", tmp_path / "my own-(rewards)" / "own.py"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(OWN)
        done = (TRUTH, [BOX, Stop()], [HALF])
        np.testing.assert_array_equal(values(rewards.make(f"{file}:steps"), done), [1, 2])
        np.testing.assert_array_equal(values(rewards.make(f"{file}:steps?each=2"), done), [2, 4])
        assert rewards.make(f"{file}:Level?weight=3").weight == 3
    file = tmp_path / "own.py"
    mixed = rewards.make(f"format-2*{file}:steps?each=0.5 + 3*{file}:Level-{file}:steps")
    assert [weight for weight, _ in mixed.parts] == [1, -2, 3, -1]
    for name, words in (
        ("two", r"two\(episode, other\) cannot be called as reward\(episode, \*\*options\)"),
        ("limit", r"of the type int; wanted is reward\(episode"),
        ("levl", "has no 'levl'.*it holds"),
        ("steps?each=x", "each cannot be 'x'"),
    ):
        with pytest.raises(MedSegError, match=words):
            rewards.make(f"{file}:{name}")


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("dice_gain + nonsense", "unknown reward 'nonsense'; known: dice_gain, format"),
        ("dice_gain + 0.2", "a number is a weight"),
        ("dice_gain * format", "multiplied by numbers alone"),
        ("dice_gain ** 2", "more than specs"),
        ("dice_gain / 2", "more than specs"),
        ("dice_gain +", "not a formula"),
        ("", "not a formula"),
        ("(" * 5000, "not a formula"),
        ("1 + 1", "a number is a weight"),
        ("2 * 3", "names no reward"),
        ("True * format", "unknown reward 'True'"),
        ("1e999 * format", "finite weights"),
        ("__import__('os').system('true')", "without parentheses"),
        ("format + 'os'", "more than specs"),
        ("dice_gain(0.1)", r"behind a question mark, .*: dice_gain\?name=value"),
        ("dice_gain(step_penalty=0.1) + format", r"behind a question mark, .*: dice_gain\?name"),
        ("dice_gain format", "not a formula"),
        ("(dice_gain", "not a formula"),
        ("dice_gain + format)", "not a formula"),
        ("dice_gain?step_penalty", "cannot read the options"),
        ("dice_gain?step_penalty=format", "step_penalty cannot be 'format': a number"),
        ("2 * dice_gain?step_penalty=0.1*3", "step_penalty cannot be '0.1.3': a number"),
        ("dice_gain?fee=0.1", "reward dice_gain.fee=0.1: no option 'fee'; it takes: step_penalty"),
        ("dice_gian + format", r"unknown reward 'dice_gian' \(did you mean 'dice_gain'\?\)"),
    ],
)
def test_formulas_that_cannot_be_read(formula, words):
    with pytest.raises(MedSegError, match=words):
        rewards.make(formula)


def test_misuse_is_refused():
    with pytest.raises(MedSegError, match="write them behind it"):
        rewards.make("dice_gain + format", step_penalty=0.1)
    with pytest.raises(MedSegError, match="reward dice_gain: no option 'fee'"):
        rewards.make("dice_gain", fee=1)
    with pytest.raises(MedSegError, match="needs parts"):
        Mixture(())
    for other in (1, "format", None):
        for operation in (operator.add, operator.sub):
            with pytest.raises(TypeError):
                operation(DiceGain(), other)
            with pytest.raises(TypeError):
                operation(other, DiceGain())
    with pytest.raises(TypeError):
        DiceGain() * Format()
