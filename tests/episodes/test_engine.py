"""The engine: one decode per step of all slots, exact scores, and slots that do not mix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym.backbones import EllipseBackbone
from medseg_gym.episodes import DecodeOptions, EpisodeEngine, EpisodeError, episode_info, metrics
from medseg_gym.errors import MedSegError, PromptError
from medseg_gym.prompts import AddBox, AddPoint, Clear, Stop, Undo

ELLIPSE = EllipseBackbone()
BOX, OTHER_BOX = AddBox(0.2, 0.1, 0.9, 0.7), AddBox(0.1, 0.1, 0.5, 0.5)
CLICK, CUT = AddPoint(0.6, 0.4), AddPoint(0.3, 0.3, positive=False)
WITHOUT_DECODE = [Undo(), Clear(), Stop(), None, PromptError("?"), AddBox(0.1, 0.1, 0.1, 0.9)]
MAX_STEPS = 6
ACTIONS = st.one_of(
    st.from_type(AddBox),
    st.from_type(AddPoint),
    st.sampled_from([Undo(), Clear(), Undo(), Clear(), Stop(), None, PromptError("unreadable")]),
)
SCRIPTS = st.lists(ACTIONS, min_size=MAX_STEPS, max_size=MAX_STEPS)


def play(engine, slots, cases, scripts):
    """Play a script in every slot until all episodes are over; results by slot, step by step."""
    engine.reset(slots, cases)
    results = {slot: [] for slot in slots}
    for number in range(MAX_STEPS):
        running = [
            (s, script)
            for s, script in zip(slots, scripts, strict=True)
            if not engine.episode(s).done
        ]
        if running:
            taken = engine.step([s for s, _ in running], [script[number] for _, script in running])
            for (slot, _), result in zip(running, taken, strict=True):
                results[slot].append(result)
    return [results[slot] for slot in slots]


# scores and rewards -------------------------------------------------------------------------------
@given(st.integers(0, 4), SCRIPTS, st.sampled_from([0.0, 0.01, 0.25]))
def test_the_return_is_the_gain_minus_the_cost(small_cases, which, script, penalty):
    from medseg_gym.episodes.rewards import DiceGain

    engine = EpisodeEngine(ELLIPSE, reward=DiceGain(penalty), max_steps=MAX_STEPS)
    case = small_cases[which]
    (results,) = play(engine, [0], [case], [script])
    episode = engine.episode(0)
    first = episode.start_dice
    assert first == (0.0 if case.mask.any() else 1.0)
    costs = [result.info["cost"] for result in results]
    tools = [result.info["tool"] for result in results]
    assert costs == [0.0 if tool == "stop" else penalty for tool in tools]
    gained = results[-1].info["dice"] - first - sum(costs)
    assert sum(result.reward for result in results) == pytest.approx(gained, abs=1e-12)
    assert [result.terminated for result in results] == [False] * (len(results) - 1) + [True]


@given(st.lists(st.tuples(st.integers(0, 4), SCRIPTS), min_size=1, max_size=4))
def test_info_tells_the_dice_and_iou_of_the_mask(small_cases, plays):
    engine = EpisodeEngine(ELLIPSE, num_slots=len(plays), max_steps=MAX_STEPS)
    slots = range(len(plays))
    cases = [small_cases[which] for which, _ in plays]
    played = play(engine, slots, cases, [script for _, script in plays])
    for slot, case, results in zip(slots, cases, played, strict=True):
        steps = engine.episode(slot).steps
        assert len(steps) == len(results)
        for step, result in zip(steps, results, strict=True):
            mask = step.state.mask.numpy()
            assert mask.shape == case.mask.shape and mask.dtype == bool
            assert result.info["dice"] == step.dice == metrics.dice(mask, case.mask)
            assert result.info["iou"] == step.iou == metrics.iou(mask, case.mask)
            assert result.info["case"] == case.key
            assert result.info["valid"] == (result.info["error"] == "")
            assert result.info["stopped"] == (result.info["tool"] == "stop")


def test_info_holds_scalars_only(small_cases):
    engine = EpisodeEngine(ELLIPSE)
    (episode,) = engine.reset([0], small_cases[:1])
    at_reset = episode_info(episode)
    (result,) = engine.step([0], [BOX])
    for info in (at_reset, result.info):
        assert all(type(value) in (float, bool, str) for value in info.values())
    assert set(at_reset) <= set(result.info)
    assert at_reset["dice"] == 0 and at_reset["cost"] == 0 and at_reset["tool"] == ""


def test_a_good_box_pays(small_cases):
    engine = EpisodeEngine(ELLIPSE)
    engine.reset([0], small_cases[:1])
    (result,) = engine.step([0], [AddBox(0.35, 0.1, 0.85, 0.7)])
    assert result.info["dice"] > 0.95
    assert result.reward == result.info["dice"] - 0.01 == result.info["dice_gain"] - 0.01


# slots do not mix ---------------------------------------------------------------------------------
@given(st.permutations(range(5)), st.lists(SCRIPTS, min_size=5, max_size=5), st.integers(0, 3))
def test_slots_and_their_order_do_not_matter(small_cases, order, scripts, spare):
    together = EpisodeEngine(ELLIPSE, num_slots=5, max_steps=MAX_STEPS)
    shuffled = EpisodeEngine(ELLIPSE, num_slots=5 + spare, max_steps=MAX_STEPS)
    expected = play(together, range(5), small_cases, scripts)
    slots = [place + spare for place in order]
    actual = play(shuffled, slots, small_cases, scripts)
    for i, slot in enumerate(slots):
        alone = EpisodeEngine(ELLIPSE, max_steps=MAX_STEPS)
        (by_itself,) = play(alone, [0], [small_cases[i]], [scripts[i]])
        assert expected[i] == actual[i] == by_itself  # rewards, ends and infos, bit for bit
        for engine, place in ((shuffled, slot), (alone, 0)):
            pairs = zip(engine.episode(place).steps, together.episode(i).steps, strict=True)
            for step, reference in pairs:
                assert torch.equal(step.state.mask, reference.state.mask)
                assert (step.state.logits is None) == (reference.state.logits is None)
                if step.state.logits is not None:
                    assert torch.equal(step.state.logits, reference.state.logits)


def test_a_step_touches_the_slots_it_names_only(small_cases):
    engine = EpisodeEngine(ELLIPSE, num_slots=3)
    engine.reset([0, 1, 2], small_cases[:3])
    (result,) = engine.step([1], [BOX])
    assert result.info["case"] == small_cases[1].key
    assert [len(engine.episode(slot).steps) for slot in range(3)] == [0, 1, 0]
    engine.reset([1], small_cases[3:4])
    assert [engine.episode(slot).case for slot in range(3)] == [small_cases[i] for i in (0, 3, 2)]
    assert not engine.episode(1).steps


# calls of the backbone ----------------------------------------------------------------------------
def test_a_step_of_all_slots_is_one_decode_whatever_their_sizes(spy, small_cases):
    engine = EpisodeEngine(spy, num_slots=5)
    engine.reset(range(5), small_cases)
    results = engine.step(range(5), [BOX, CLICK, OTHER_BOX, CUT, BOX])
    assert [len(rows) for rows in spy.decodes] == [5] and spy.resizes == 1
    assert [result.info["case"] for result in results] == [case.key for case in small_cases]
    assert [engine.episode(i).state.mask.shape for i in range(5)] == [
        case.mask.shape for case in small_cases
    ]


def test_only_adds_are_decoded(spy, small_cases):
    engine = EpisodeEngine(spy, num_slots=5)
    engine.reset(range(5), small_cases)
    engine.step(range(5), [CLICK] * 5)
    engine.step(range(5), [Undo(), BOX, None, Clear(), CLICK])
    assert [len(rows) for rows in spy.decodes] == [5, 2]
    assert [row.embedding.image_size for row in spy.decodes[1]] == [
        small_cases[i].mask.shape for i in (1, 4)
    ]


@pytest.mark.parametrize("action", WITHOUT_DECODE, ids=repr)
def test_what_adds_nothing_costs_no_decode(spy, small_cases, action):
    engine = EpisodeEngine(spy, num_slots=2)
    engine.reset([0, 1], small_cases[:2])
    engine.step([0, 1], [BOX, BOX])
    engine.step([0, 1], [action, action])
    assert len(spy.decodes) == 1 and spy.resizes == 1


def test_a_reset_encodes_each_distinct_image_once(spy, small_cases):
    engine = EpisodeEngine(spy, num_slots=6)
    first, *_, shared, _ = small_cases
    assert first.content_hash == shared.content_hash
    engine.reset(range(6), [first, shared, small_cases[1], first, small_cases[1], shared])
    assert spy.encoded == [2]
    other = EpisodeEngine(spy, num_slots=2)
    other.reset([1, 0], [shared, small_cases[2]])
    assert spy.encoded == [2, 1]
    counters = other.cache.counters
    assert (counters.hits, counters.misses, counters.encodes) == (5, 3, 3)


# rows ---------------------------------------------------------------------------------------------
def rows_of(spy, case, prompts, **options):
    """The row that each prompt led to."""
    engine = EpisodeEngine(spy, max_steps=20, options=DecodeOptions(**options))
    engine.reset([0], [case])
    for prompt in prompts:
        engine.step([0], [prompt])
    return [rows[0] for rows in spy.decodes]


def test_by_default_every_prompt_in_force_is_given(spy, small_cases):
    rows = rows_of(spy, small_cases[0], [CLICK, BOX, CUT, Undo(), OTHER_BOX, Clear(), CUT])
    assert [(row.box, row.points) for row in rows] == [
        (None, (CLICK,)),
        (BOX, (CLICK,)),
        (BOX, (CLICK, CUT)),
        (OTHER_BOX, (CLICK,)),
        (None, (CUT,)),
    ]


def test_the_newest_prompt_alone_is_given_once_there_are_logits(spy, small_cases):
    prompts = [CLICK, BOX, CUT, Undo(), Clear(), CUT, CLICK]
    rows = rows_of(spy, small_cases[0], prompts, prompt_memory="newest")
    assert [(row.box, row.points) for row in rows] == [
        (None, (CLICK,)),
        (BOX, ()),
        (None, (CUT,)),
        (None, (CUT,)),
        (None, (CLICK,)),
    ]
    assert [row.mask_input is None for row in rows] == [True, False, False, True, False]


def test_the_newest_memory_still_remembers_what_is_in_force(spy, small_cases):
    engine = EpisodeEngine(spy, options=DecodeOptions(prompt_memory="newest"))
    engine.reset([0], small_cases[:1])
    for prompt in (CLICK, BOX, CUT):
        engine.step([0], [prompt])
    assert engine.episode(0).state.box == BOX
    assert engine.episode(0).state.points == (CLICK, CUT)


def test_logits_are_fed_back_and_undo_goes_back_to_earlier_ones(spy, small_cases):
    engine = EpisodeEngine(spy, max_steps=9)
    (episode,) = engine.reset([0], small_cases[:1])
    for prompt in (BOX, CLICK, Undo(), CUT, Clear(), CLICK):
        engine.step([0], [prompt])
    fed = [rows[0].mask_input for rows in spy.decodes]
    after_box = episode.steps[0].state.logits
    assert fed[0] is None and fed[3] is None
    assert torch.equal(fed[1], after_box) and torch.equal(fed[2], after_box)


@pytest.mark.parametrize("memory", ["all", "newest"])
@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("wanted", [True, False])
def test_no_mask_input_where_unwanted_or_untaken(spy, small_cases, memory, taken, wanted):
    spy.takes_mask_input = taken
    prompts = [BOX, CLICK, CUT]
    rows = rows_of(spy, small_cases[0], prompts, mask_input=wanted, prompt_memory=memory)
    assert [row.mask_input is not None for row in rows] == [False] + [taken and wanted] * 2


@pytest.mark.parametrize(
    ("multimask", "expected"),
    [
        ("auto", [True, False, False, False, False]),
        ("always", [True] * 5),
        ("never", [False] * 5),
    ],
)
def test_three_masks_are_asked_for_a_single_click(spy, small_cases, multimask, expected):
    rows = rows_of(spy, small_cases[0], [CLICK, CUT, BOX, Clear(), BOX, CLICK], multimask=multimask)
    assert [row.multimask for row in rows] == expected


def test_auto_goes_by_the_row_that_is_decoded(spy, small_cases):
    prompts = [BOX, CLICK, CUT, OTHER_BOX]
    rows = rows_of(spy, small_cases[0], prompts, prompt_memory="newest")
    assert [row.multimask for row in rows] == [False, True, True, False]


# misuse -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("action", [None, PromptError("no <tool_call> found")], ids=repr)
def test_an_unreadable_action_costs_a_step_and_says_so(small_cases, action):
    engine = EpisodeEngine(ELLIPSE, max_steps=2)
    engine.reset([0], small_cases[:1])
    (result,) = engine.step([0], [action])
    assert result.reward == -0.01 and not result.terminated
    assert (result.info["valid"], result.info["tool"]) == (False, "")
    assert result.info["error"] == (str(action) if action else "the action could not be read")
    assert engine.step([0], [action])[0].terminated


def test_a_slot_without_a_running_episode_raises_and_no_slot_moves(spy, small_cases):
    engine = EpisodeEngine(spy, num_slots=3)
    engine.reset([0, 1], small_cases[:2])
    with pytest.raises(EpisodeError, match="slot 2 has no episode; reset it"):
        engine.step([0, 2], [BOX, BOX])
    engine.step([1], [Stop()])
    with pytest.raises(EpisodeError, match=r"case 'tall' is over; reset it"):
        engine.step([0, 1], [BOX, BOX])
    with pytest.raises(ValueError):
        engine.step([0, 1], [BOX])
    assert not engine.episode(0).steps and not spy.decodes


@pytest.mark.parametrize("wrong", [{"num_slots": 0}, {"max_steps": 0}, {"reward": "iou_gain"}])
def test_unusable_settings_are_refused(wrong):
    with pytest.raises(MedSegError):
        EpisodeEngine(ELLIPSE, **wrong)


@pytest.mark.parametrize("wrong", [{"prompt_memory": "none"}, {"multimask": True}])
def test_unknown_decode_options_list_the_known_ones(wrong):
    with pytest.raises(EpisodeError, match=rf"{next(iter(wrong))} must be one of \("):
        DecodeOptions(**wrong)


def test_the_truth_is_never_in_a_row(spy, small_cases):
    """Two cases on one image differ in their truth alone: the backbone cannot tell them apart."""
    first, shared = small_cases[0], small_cases[3]
    engine = EpisodeEngine(spy, num_slots=2)
    engine.reset([0, 1], [first, shared])
    engine.step([0, 1], [BOX, BOX])
    one, two = spy.decodes[0]
    assert one.embedding is two.embedding
    assert torch.equal(engine.episode(0).state.mask, engine.episode(1).state.mask)
    assert engine.episode(0).dice != engine.episode(1).dice
    assert np.array_equal(first.image, shared.image)


def test_slots_are_distinct_and_one_per_value(small_cases):
    engine = EpisodeEngine(EllipseBackbone(), num_slots=2)
    for slots in ([0], [0, 0]):
        with pytest.raises(EpisodeError, match="distinct"):
            engine.reset(slots, small_cases[:2])
    assert engine.episodes == [None, None]
    engine.reset([0, 1], small_cases[:2])
    with pytest.raises(EpisodeError, match="distinct"):
        engine.step([0, 0], [Stop(), Stop()])
