"""A human hand: slips in the measure asked for, the same for any number of slots."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medseg_gym import annotators
from medseg_gym.annotators import Noisy, OracleClick, OracleScript
from medseg_gym.backbones import EllipseBackbone
from medseg_gym.backbones.protocol import Prediction
from medseg_gym.cases import Case
from medseg_gym.episodes import EpisodeEngine
from medseg_gym.errors import PolicyError
from medseg_gym.policy import make_envs, play_cases
from medseg_gym.prompts import AddBox, AddPoint, ArrayCodec, Stop

SLOTS = 400
CLEAN = {"jitter": 0.0, "loosen": 0.0, "wrong": 0.0, "early": 0.0, "late": 0.0}


class Fixed(OracleScript):
    """Always the same prompt."""

    name = "fixed"

    def __init__(self, prompt, bins=65536):
        super().__init__(ArrayCodec(bins))
        self.prompt = prompt

    def choose_all(self, slots, episodes):
        return [self.prompt] * len(slots)


class Blank(EllipseBackbone):
    """Finds nothing, quickly."""

    def decode(self, rows):
        return Prediction(torch.full((len(rows), 4, 4), -1.0), torch.full((len(rows),), 0.5))


def a_case(seed: int = 0, side: int = 40) -> Case:
    mask = np.zeros((side, side), bool)
    mask[10:26, 12:28] = True  # 16 x 16: the square root of its area is 16
    return Case(f"square {seed}", np.full((side, side, 3), seed, np.uint8), mask, target="square")


def ask_many(policy, turns=1, case=None):
    """Actions of a policy in many slots that all play one case, turn by turn."""
    engine = EpisodeEngine(Blank(), num_slots=SLOTS, max_steps=turns + 1)
    episodes = engine.reset(range(SLOTS), [case or a_case()] * SLOTS)
    policy.reset(range(SLOTS), [np.random.default_rng([7, i]) for i in range(SLOTS)])
    taken = []
    for turn in range(turns):
        running = [i for i in range(SLOTS) if not episodes[i].done]
        actions = policy.act({}, episodes)
        prompts = [policy.codec.decode(actions[i][None])[0] for i in running]
        taken.append(prompts)
        if turn < turns - 1:
            engine.step(running, prompts)
    return taken


def test_clicks_scatter_in_the_measure_of_the_object():
    for jitter in (0.05, 0.2):
        policy = Noisy(Fixed(AddPoint(0.5, 0.5)), **{**CLEAN, "jitter": jitter})
        (clicks,) = ask_many(policy)
        offsets = np.array([[c.x - 0.5, c.y - 0.5] for c in clicks]) * 40 / 16
        assert np.allclose(offsets.std(axis=0), jitter, rtol=0.12)
        assert np.abs(offsets.mean(axis=0)).max() < 4 * jitter / SLOTS**0.5
        assert all(click.positive for click in clicks)


def test_clicks_near_the_border_stay_in_the_image():
    policy = Noisy(Fixed(AddPoint(0.0, 1.0)), **{**CLEAN, "jitter": 1.0})
    (clicks,) = ask_many(policy)
    assert all(0 <= c.x <= 1 and 0 <= c.y <= 1 for c in clicks)
    assert len({(c.x, c.y) for c in clicks}) > SLOTS / 2


def test_boxes_only_grow():
    box = AddBox(0.3, 0.4, 0.5, 0.6)
    policy = Noisy(Fixed(box), **{**CLEAN, "loosen": 0.5})
    (boxes,) = ask_many(policy)
    cell = 1 / policy.codec.bins
    assert all(0.2 - cell <= b.x1 <= 0.3 + cell and 0.6 - cell <= b.y2 <= 0.7 + cell for b in boxes)
    assert np.mean([b.x1 for b in boxes]) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("wrong", [0.0, 0.1, 1.0])
def test_labels_are_wrong_as_often_as_asked_for(wrong):
    policy = Noisy(Fixed(AddPoint(0.5, 0.5)), **{**CLEAN, "wrong": wrong})
    turns = ask_many(policy, turns=3)
    share = np.mean([not click.positive for clicks in turns for click in clicks])
    assert share == pytest.approx(wrong, abs=0.03 if 0 < wrong < 1 else 0)


def test_it_stops_early_as_often_as_asked_for_but_never_in_the_first_turn():
    policy = Noisy(Fixed(AddPoint(0.5, 0.5)), **{**CLEAN, "early": 0.2})
    first, second, third = ask_many(policy, turns=3)
    assert not any(isinstance(prompt, Stop) for prompt in first)
    for prompts in (second, third):
        stops = np.mean([isinstance(prompt, Stop) for prompt in prompts])
        assert stops == pytest.approx(0.2, abs=0.07)


def test_it_goes_on_late_as_often_as_asked_for():
    policy = Noisy(Fixed(Stop()), **{**CLEAN, "late": 0.3})
    (prompts,) = ask_many(policy)
    clicks = [prompt for prompt in prompts if isinstance(prompt, AddPoint)]
    assert len(clicks) / SLOTS == pytest.approx(0.3, abs=0.07)
    assert all(10 <= c.y * 40 < 26 and 12 <= c.x * 40 < 28 and c.positive for c in clicks)


def test_where_there_is_no_target_it_stops_at_once(small_cases):
    policy = annotators.make("noisy-sequential-click?late=1&wrong=1", ArrayCodec())
    (prompts,) = ask_many(policy, case=small_cases[-1])
    assert prompts == [Stop()] * SLOTS


@pytest.mark.parametrize("name", ["hybrid", "box-to-point", "oracle-click"])
def test_without_slips_it_is_the_expert(name, small_cases):
    def play(text):
        envs = make_envs(2, cases=small_cases, backbone=EllipseBackbone(), max_steps=4)
        policy = annotators.make(text, envs.codec)
        result = play_cases(envs, policy, [case.key for case in small_cases], seed=1)
        return [[s.prompt for s in p.episode.steps] for batch in result for p in batch]

    clean = "&".join(f"{option}=0" for option in CLEAN)
    assert play(f"noisy-{name}?{clean}") == play(name)


def test_slips_are_the_same_for_any_number_of_slots_and_differ_by_seed():
    cases = [a_case(seed) for seed in range(9)]

    def play(num_envs, seed):
        envs = make_envs(num_envs, cases=cases, backbone=EllipseBackbone(), max_steps=5)
        policy = annotators.make("noisy-hybrid?wrong=0.3&late=0.5&early=0.2", envs.codec)
        result = play_cases(envs, policy, [case.key for case in cases], seed=seed)
        return {p.key: [s.prompt for s in p.episode.steps] for batch in result for p in batch}

    once = play(1, seed=5)
    assert once == play(4, seed=5) == play(9, seed=5)
    again = play(4, seed=6)
    assert sum(once[key] != again[key] for key in once) >= 7
    # The cases are alike but for their keys: what differs is the hand.
    assert len({str(prompts) for prompts in once.values()}) >= 7


def test_names_hold_both_kinds_of_options():
    codec = ArrayCodec()
    policy = annotators.make("noisy-hybrid?wrong=0.2&tau=0.03&jitter=0.3", codec)
    assert isinstance(policy, Noisy) and (policy.wrong, policy.jitter) == (0.2, 0.3)
    assert policy.expert.tau == 0.03 and policy.sees_truth
    assert policy.name == "noisy-hybrid?tau=0.03&jitter=0.3&wrong=0.2"
    assert annotators.make(policy.name, codec).name == policy.name
    assert (
        annotators.make("noisy-oracle-box?loosen=0.4", codec).name == "noisy-oracle-box?loosen=0.4"
    )
    assert isinstance(annotators.make("noisy-oracle-click", codec).expert, OracleClick)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("noisy-stop", "only an oracle can be noisy, 'stop' is none"),
        ("noisy-nobody", "unknown policy 'noisy-nobody'"),
        (
            "noisy-hybrid?loose=1",
            "no option 'loose'.* it takes: tau, retries, min_iou, boxes, ji",
        ),
        ("noisy-hybrid?wrong=1.1", "chances in"),
        ("noisy-hybrid?jitter=-1", r"jitter and loosen in \[0, 2\]"),
        ("noisy-hybrid?late=nan", "a finite number is wanted"),
    ],
)
def test_bad_names_are_refused(text, words):
    with pytest.raises(PolicyError, match=words):
        annotators.make(text, ArrayCodec())
