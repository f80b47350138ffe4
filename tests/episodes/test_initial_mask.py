"""Episodes that begin with a mask: scores, undo and clear, and what the decoder is fed."""

from __future__ import annotations

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

from medseg_gym import annotators, backbones
from medseg_gym.backbones.mask_inputs import CERTAIN, MaskInputs
from medseg_gym.cases.initial.wrong import Wrong
from medseg_gym.episodes import EpisodeEngine
from medseg_gym.episodes.metrics import dice
from medseg_gym.prompts import AddBox, AddPoint, Clear, Stop, Undo

CLICK, BOX = AddPoint(0.6, 0.4), AddBox(0.3, 0.1, 0.9, 0.8)


@pytest.fixture
def begun_cases(small_cases):
    return [replace(case, initial_mask=Wrong()(case)) for case in small_cases]


def test_it_is_the_state_and_the_score_to_begin_with(begun_cases):
    engine = EpisodeEngine(backbones.load("ellipse"), len(begun_cases))
    for episode in engine.reset(range(len(begun_cases)), begun_cases):
        case = episode.case
        assert np.array_equal(episode.state.mask.numpy(), case.initial_mask)
        assert episode.dice == pytest.approx(dice(case.initial_mask, case.mask))
        assert episode.state.box is None and not episode.state.points


def test_gains_are_counted_from_it(begun_cases):
    engine = EpisodeEngine(backbones.load("ellipse"), 1, "dice_gain", 4)
    (episode,) = engine.reset([0], begun_cases[:1])
    for prompt in (BOX, CLICK, Stop()):
        engine.step([0], [prompt])
    calls = 2
    gained = episode.dice - episode.start_dice - 0.01 * calls
    assert sum(episode.rewards) == pytest.approx(gained)


def test_undo_goes_back_to_it_and_clear_to_nothing(begun_cases):
    engine = EpisodeEngine(backbones.load("ellipse"), 1, max_steps=9)
    (episode,) = engine.reset([0], begun_cases[:1])
    start = episode.state
    assert engine.step([0], [Undo()])[0].info["error"] == "there is nothing to undo"
    engine.step([0], [BOX])
    engine.step([0], [Undo()])
    assert episode.state is start
    engine.step([0], [Clear()])
    assert episode.state.pixels == 0 and not episode.state.mask.any()
    assert engine.step([0], [Clear()])[0].info["error"] == "there is nothing to clear"
    engine.step([0], [Undo()])
    assert episode.state is start


def test_the_decoder_is_fed_it_and_one_click_is_then_not_ambiguous(spy, begun_cases):
    engine = EpisodeEngine(spy, 1, max_steps=9)
    (episode,) = engine.reset([0], begun_cases[:1])
    for prompt in (CLICK, Undo(), Clear(), CLICK):
        engine.step([0], [prompt])
    fed = [rows[0] for rows in spy.decodes if len(rows) == 1][-2:]
    assert torch.equal(fed[0].mask_input, episode.start.logits) and not fed[0].multimask
    assert fed[1].mask_input is None and fed[1].multimask


@pytest.mark.parametrize("taken", [True, False])
def test_only_where_the_backbone_takes_it(spy, begun_cases, small_cases, taken):
    spy.takes_mask_input = taken
    engine = EpisodeEngine(spy, 2)
    begun, plain = engine.reset([0, 1], [begun_cases[0], small_cases[1]])
    assert (begun.start.logits is not None) == taken and plain.start.logits is None


@pytest.mark.parametrize("name", ["pocket", "tiny"])
@pytest.mark.parametrize("size", [(48, 64), (100, 60), (300, 200), (64, 256)])
def test_fed_logits_show_the_mask(name, size, request):
    backbone = request.getfixturevalue("tiny_backbone") if name == "tiny" else backbones.load(name)
    height, width = size
    mask = np.zeros(size, bool)
    mask[height // 5 : -height // 4, width // 3 :] = True
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    (embedding,) = backbone.encode([image])
    (logits,) = MaskInputs(backbone).of([mask], [embedding])
    assert logits.abs().max() <= CERTAIN
    (back,) = backbone.to_image(logits[None], [embedding])
    assert dice(back.numpy() > 0, mask) > 0.95


def test_a_click_repairs_more_with_it_than_from_nothing():
    """The mask of a whole that lacks a half: one click is enough where the rest is known."""
    spec = "phantoms:chest?initial_mask=wrong?kinds=half"
    envs = gym.make_vec("MedSeg-v0", num_envs=12, cases=spec, split="val", max_steps=2)
    envs.reset(seed=0)
    policy = annotators.make("oracle-click", envs.unwrapped.codec)
    engine = envs.unwrapped.engine
    episodes = [engine.episode(slot) for slot in range(12)]
    policy.reset(range(12), [np.random.default_rng(n) for n in range(12)])
    engine.step(range(12), policy.choose_all(range(12), episodes))
    before = np.mean([one.start_dice for one in episodes])
    after = np.mean([one.dice for one in episodes])
    envs.close()
    assert after > before + 0.05


@pytest.mark.parametrize("env_id", ["MedSeg-v0", "MedSegChat-v0"])
def test_both_views_show_it(env_id):
    spec = "phantoms:abdomen?initial_mask=wrong?kinds=leaking"
    options = {"texts": "terse"} if env_id == "MedSegChat-v0" else {}
    made = {}
    for cases in (spec, "phantoms:abdomen"):
        with gym.make(env_id, cases=cases, split="val", image_size=64, **options) as env:
            observation, info = env.reset(seed=3)
            made[cases] = observation
            assert (info["dice"] > 0) == (cases == spec)
    begun, plain = made.values()
    if env_id == "MedSeg-v0":
        assert begun["mask"].any() and not plain["mask"].any()
    else:
        assert (begun["image"] != plain["image"]).any()


@pytest.mark.parametrize("kind", ["oracle-click", "box-to-point", "hybrid", "noisy-hybrid"])
def test_experts_repair_it(kind):
    spec = "phantoms:fundus?initial_mask=wrong"
    envs = gym.make_vec("MedSeg-v0", num_envs=6, cases=spec, split="val", max_steps=6)
    envs.reset(seed=1)
    policy = annotators.make(kind, envs.unwrapped.codec)
    if hasattr(policy, "use_engine"):
        policy.use_engine(envs.unwrapped.engine)
    policy.reset(range(6), [np.random.default_rng(n) for n in range(6)])
    engine = envs.unwrapped.engine
    episodes = [engine.episode(slot) for slot in range(6)]
    while open_slots := [n for n, one in enumerate(episodes) if not one.done]:
        prompts = policy.choose_all(open_slots, [episodes[n] for n in open_slots])
        engine.step(open_slots, prompts)
        for slot in open_slots:
            policy.turns[slot] += 1
    envs.close()
    assert np.mean([one.dice - one.start_dice for one in episodes]) > 0.1
