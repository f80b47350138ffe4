"""Volume episodes: propagation, what it never touches, undo, and Dice that adds up."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest

from medseg_gym import backbones
from medseg_gym.backbones.spilling import SpillFolder
from medseg_gym.cases import VolumeCase
from medseg_gym.episodes.metrics import dice
from medseg_gym.episodes.volumes import PropagationOptions, VolumeEngine
from medseg_gym.episodes.volumes.propagation import plan_fronts
from medseg_gym.errors import EpisodeError
from medseg_gym.prompts import AddBox, AddPoint, Clear, PromptError, Stop, Undo
from medseg_gym.prompts.volumes import Look, Propagate, SlicePrompt

BOX = AddBox(0.25, 0.25, 0.75, 0.75)


class Counted:
    """Counts decodes and encoded images of a backbone, which does the work."""

    def __init__(self, backbone):
        self.backbone, self.decodes, self.encoded = backbone, [], 0

    def __getattr__(self, name):
        return getattr(self.backbone, name)

    def encode(self, images):
        self.encoded += len(images)
        return self.backbone.encode(images)

    def decode(self, rows):
        self.decodes.append(len(rows))
        return self.backbone.decode(rows)


def cylinder(depth: int = 9, first: int = 2, last: int = 6, key: str = "v", side: int = 32):
    """A bright disc in slices first..last of a noisy volume; `key` decides the noise."""
    rng = np.random.default_rng([ord(letter) for letter in key])
    y, x = np.mgrid[:side, :side]
    disc = (x - side / 2 + 0.5) ** 2 + (y - side / 2 + 0.5) ** 2 < (side / 4) ** 2
    mask = np.zeros((depth, side, side), bool)
    mask[first : last + 1] = disc
    image = (40 + rng.integers(0, 20, mask.shape) + 150 * mask).astype(np.uint8)
    return VolumeCase(key, image, mask, "disc", spacing=(5.0, 1.0, 1.0))


def engine_on(*cases, **options):
    backbone = Counted(backbones.load("ellipse"))
    engine = VolumeEngine(backbone, len(cases), max_steps=20, **options)
    engine.reset(range(len(cases)), cases)
    return engine


def act(engine, *prompts):
    return [engine.step([0], [prompt])[0] for prompt in prompts][-1]


FREE = PropagationOptions(max_shift=np.inf, max_drift=np.inf, loosen=0.0)
"""Goes through slices without the target, too."""


def test_counts_by_slice_add_up_to_the_dice_of_the_volume():
    engine = engine_on(cylinder(), propagation=FREE)
    episode = engine.episode(0)
    for prompt in (
        SlicePrompt(4, BOX),
        Propagate(),
        SlicePrompt(1, AddPoint(0.5, 0.5, positive=False)),
        SlicePrompt(7, AddBox(0.1, 0.1, 0.2, 0.3)),
        Propagate(),
        Undo(),
        SlicePrompt(3, AddPoint(0.9, 0.9)),
    ):
        result = act(engine, prompt)
        assert result.info["dice"] == dice(episode.mask(), episode.case.mask)
        assert result.info["valid"], result.info
    gains = sum(episode.rewards) + 0.01 * len(episode.steps)
    assert gains == pytest.approx(episode.dice - episode.start_dice)
    finished = act(engine, Stop())
    assert finished.terminated and finished.info["stopped"] and finished.info["cost"] == 0
    assert finished.info["episode_return"] == pytest.approx(sum(episode.rewards))
    with pytest.raises(EpisodeError, match="is over"):
        act(engine, Stop())


def test_a_box_on_one_slice_goes_through_the_volume_both_ways_at_once():
    engine = engine_on(cylinder(), propagation=FREE)
    act(engine, SlicePrompt(2, BOX), Propagate())
    state = engine.episode(0).state
    assert sorted(state.slices) == list(range(9)) and state.prompted == [2]
    assert engine.backbone.decodes == [1, 2, 2, 1, 1, 1, 1]  # the lower end comes sooner
    assert engine.backbone.encoded == 9


def test_volumes_of_a_step_share_every_decode_and_scans_their_embeddings():
    one, other = cylinder(key="a"), cylinder(key="b")
    engine = engine_on(one, other, one, propagation=FREE)
    boxes = [SlicePrompt(index, BOX) for index in (4, 2, 4)]
    engine.step([0, 1, 2], boxes)
    engine.step([0, 1, 2], [Propagate(), Propagate(), SlicePrompt(4, AddPoint(0.5, 0.5))])
    assert engine.backbone.decodes == [3, 5, 4, 3, 3, 1, 1]
    assert engine.backbone.encoded == 18
    alone = engine_on(other, propagation=FREE)
    act(alone, boxes[1], Propagate())
    assert (alone.episode(0).mask() == engine.episode(1).mask()).all()


def test_slices_with_prompts_are_never_overwritten_and_meet_half_way():
    engine = engine_on(cylinder(depth=12), propagation=FREE)
    narrow = AddBox(0.3, 0.25, 0.7, 0.75)
    act(engine, SlicePrompt(2, BOX), SlicePrompt(7, narrow))
    before = {i: engine.episode(0).slice_mask(i) for i in (2, 7)}
    act(engine, Propagate())
    episode = engine.episode(0)
    pixels = [episode.state.slices[i].pixels for i in range(12)]
    assert min(pixels[:5]) > 200 and max(pixels[5:]) < 170
    assert all((episode.slice_mask(i) == mask).all() for i, mask in before.items())


def test_a_small_box_at_the_end_takes_no_slices_from_a_large_one():
    engine = engine_on(cylinder(depth=12), propagation=FREE)
    small = AddBox(0.4, 0.4, 0.6, 0.6)
    act(engine, SlicePrompt(2, BOX), SlicePrompt(7, small), Propagate())
    pixels = [engine.episode(0).state.slices[i].pixels for i in range(12)]
    assert len(set(pixels[:7])) == 1 and pixels[0] > 150 and all(0 < n < 60 for n in pixels[7:])
    assert engine.backbone.decodes[2:] == [4, 4, 2, 2]  # it was there first, for two slices


def test_prompts_that_correct_are_passed_through_and_start_nothing():
    engine = engine_on(cylinder(depth=12), propagation=FREE)
    act(engine, SlicePrompt(2, BOX), Propagate())
    narrow = AddBox(0.3, 0.25, 0.7, 0.75)
    act(engine, SlicePrompt(6, narrow))
    before = engine.episode(0).slice_mask(6)
    assert engine.episode(0).state.slices[6].corrects
    act(engine, Propagate())
    episode = engine.episode(0)
    pixels = [episode.state.slices[i].pixels for i in range(12)]
    assert min(pixels[:6]) > 200 and max(pixels[6:]) < 170
    assert (episode.slice_mask(6) == before).all()


def test_negative_clicks_alone_start_nothing():
    engine = engine_on(cylinder(), propagation=FREE)
    act(engine, SlicePrompt(3, BOX), Propagate())
    act(engine, SlicePrompt(3, AddPoint(0.5, 0.5, positive=False)), Undo(), Clear())
    act(engine, SlicePrompt(5, AddPoint(0.5, 0.5, positive=False)))
    assert not act(engine, Propagate()).info["valid"]


def test_a_front_goes_on_where_the_other_one_has_ended():
    case = cylinder(depth=12, first=0, last=11)
    engine = engine_on(case, propagation=replace(FREE, max_change=1.5))
    act(engine, SlicePrompt(1, BOX), SlicePrompt(10, AddBox(0.45, 0.45, 0.55, 0.55)), Propagate())
    assert engine.episode(0).state.slices[9].pixels > 100


def test_an_empty_slice_of_ones_own_ends_the_target():
    engine = engine_on(cylinder(), propagation=FREE)
    act(
        engine,
        SlicePrompt(3, BOX),
        Propagate(),
        SlicePrompt(6, AddPoint(0.5, 0.5, positive=False)),
    )
    state = engine.episode(0).state
    one = state.slices[6]
    assert one.prompted and one.carried is not None and one.pixels > 0  # a disc is cut out
    cut = {3: state.slices[3], 6: replace(one, pixels=0)}
    ends = {(front.at, front.step): front.last for front in plan_fronts(cut, 9)}
    assert ends == {(3, -1): 0, (3, 1): 5}


def test_propagating_again_forgets_what_was_carried_before():
    engine = engine_on(cylinder(), propagation=FREE)
    act(engine, SlicePrompt(4, BOX), Propagate())
    first = engine.episode(0).mask()
    act(engine, SlicePrompt(4, AddBox(0.4, 0.4, 0.6, 0.6)), Propagate())
    assert engine.episode(0).mask().sum() < first.sum() / 3
    act(engine, SlicePrompt(4, BOX), Propagate())
    assert (engine.episode(0).mask() == first).all()
    act(engine, Undo(), Undo(), Undo(), Undo())
    assert (engine.episode(0).mask() == first).all()


def test_clear_and_look_and_actions_that_change_nothing():
    engine = engine_on(cylinder())
    episode = engine.episode(0)
    assert episode.view == 4
    for prompt, words in (
        (Propagate(), "no slice with a box"),
        (Undo(), "nothing to undo"),
        (Clear(), "nothing to clear"),
        (Look(9), "9 slices"),
        (SlicePrompt(9, BOX), "9 slices"),
        (SlicePrompt(1, AddBox(0.5, 0, 0.5, 1)), "no area"),
        (PromptError("nonsense"), "nonsense"),
    ):
        result = act(engine, prompt)
        assert not result.info["valid"] and words in result.info["error"]
        assert result.reward == pytest.approx(-0.01) and episode.view == 4
    assert engine.backbone.decodes == []
    assert act(engine, Look(1)).info["slice"] == 1 and not episode.state.slices
    assert act(engine, SlicePrompt(3, BOX)).info["slice"] == 3
    act(engine, Clear())
    assert not episode.state.slices and not episode.mask().any()
    assert act(engine, Undo()).info["prompted_slices"] == 1


def test_a_mask_that_leaves_its_target_dies_out():
    engine = engine_on(cylinder(), propagation=PropagationOptions(loosen=0.0))
    act(engine, SlicePrompt(4, BOX), Propagate())
    state = engine.episode(0).state
    assert [i for i, one in sorted(state.slices.items()) if one.pixels] == [2, 3, 4, 5, 6]
    assert engine.episode(0).dice > 0.9


def test_a_learned_backbone_is_given_logits_and_its_slices_are_encoded_when_needed():
    case = cylinder(depth=40, first=18, last=21, side=64)
    backbone = Counted(backbones.load("pocket", device="cpu"))
    engine = VolumeEngine(backbone)
    engine.reset([0], [case])
    act(engine, SlicePrompt(20, AddBox(0.24, 0.24, 0.77, 0.77)), Propagate())
    assert engine.episode(0).dice > 0.85
    assert backbone.encoded <= 12  # of 40: the rest was never reached


def test_a_folder_takes_the_embeddings_that_memory_has_no_room_for(tmp_path):
    case = cylinder(depth=8, first=0, last=7, side=64)
    one = 2_300_000
    bounded = backbones.load("pocket", device="cpu", cache_bytes=2 * one, store=tmp_path)
    free = backbones.load("pocket", device="cpu")
    masks = []
    for backbone in (bounded, free):
        engine = VolumeEngine(backbone, propagation=FREE)
        engine.reset([0], [case])
        act(engine, SlicePrompt(4, BOX), Propagate(), Propagate())
        masks.append(engine.episode(0).mask())
    cache = backbones.embedding_cache(bounded)
    assert cache.nbytes <= 2 * one and len(cache) <= 2
    assert cache.counters.encodes == 8 and cache.counters.reads > 0
    assert len(list(tmp_path.rglob("*.safetensors"))) == 8
    assert (masks[0] == masks[1]).all()


def test_what_memory_has_no_room_for_goes_to_a_temporary_folder_of_bounded_size(tmp_path):
    case = cylinder(depth=8, first=0, last=7, side=64)
    one = 2_300_000
    backbone = backbones.load("pocket", device="cpu", cache_bytes=2 * one, encode_batch=2)
    cache = backbones.embedding_cache(backbone)
    cache.spill = SpillFolder(4 * one, tmp_path)
    engine = VolumeEngine(backbone, propagation=FREE)
    engine.reset([0], [case])
    act(engine, SlicePrompt(4, BOX), Propagate())
    assert cache.nbytes <= 2 * one and cache.counters.encodes == 8
    assert cache.spill.nbytes <= 4 * one and len(list(tmp_path.rglob("*.safetensors"))) == 4
    act(engine, SlicePrompt(3, BOX))  # of the newest that memory had no room for
    reads = cache.counters.reads
    assert reads and cache.counters.encodes < 16
    folder = next(tmp_path.iterdir())
    cache.spill = None
    gc.collect()
    assert not folder.exists()


def test_volumes_of_a_step_share_encoder_passes():
    cases = [cylinder(key=key, side=64) for key in "abc"]
    backbone = backbones.load("pocket", device="cpu", encode_batch=4)
    passes = []
    encode = backbone._encode
    backbone._encode = lambda images: passes.append(len(images)) or encode(images)
    engine = VolumeEngine(backbone, len(cases), propagation=FREE)
    engine.reset(range(3), cases)
    engine.step(range(3), [SlicePrompt(4, BOX)] * 3)
    assert passes == [3]  # one pass for three volumes
    engine.step(range(3), [Propagate()] * 3)
    assert sum(passes) == 27 and passes[1:].count(4) == 6  # nearly all passes are full
    del backbone._encode


@pytest.mark.parametrize("options", [{"loosen": -1}, {"min_overlap": 2}, {"max_change": 0.5}])
def test_senseless_options_are_refused(options):
    with pytest.raises(EpisodeError, match=next(iter(options))):
        PropagationOptions(**options)
