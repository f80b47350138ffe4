"""Propagation by SAM 2's own memory against its SAM2VideoPredictor, with random weights."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("sam2")

from sam2.build_sam import build_sam2_video_predictor

from medseg_gym.backbones import BackboneError, PromptRow, Sam2Backbone, load
from medseg_gym.backbones.cache import embedding_cache
from medseg_gym.backbones.families.sam2.backbone import build_model
from medseg_gym.backbones.memory import MemoryBackbone
from medseg_gym.cases import VolumeCase
from medseg_gym.episodes.volumes import PropagationOptions, VolumeEngine
from medseg_gym.errors import EpisodeError
from medseg_gym.prompts import AddBox, AddPoint, Undo
from medseg_gym.prompts.volumes import Propagate, SlicePrompt

SIDE, DEPTH, TOLERANCE = 64, 21, 1e-4
"""More slices than the model looks back."""

BOX, OTHER = AddBox(0.2, 0.25, 0.7, 0.75), AddBox(0.35, 0.2, 0.8, 0.6)
YES, NO = AddPoint(0.55, 0.45, positive=True), AddPoint(0.15, 0.8, positive=False)

ACTIONS = {
    "a box": [(3, BOX)],
    "a click on the first slice": [(0, YES)],
    "a box on the last slice, and clicks": [(DEPTH - 1, BOX), (DEPTH - 1, YES), (DEPTH - 1, NO)],
    "several slices": [(12, YES), (5, BOX), (6, NO), (12, NO), (6, YES), (17, OTHER), (5, YES)],
}


def lively(model):
    """Let random weights draw masks of both signs and find the target.

    Those of the memory stay: it is kept in bfloat16, and weights that amplify it would amplify the
    places where rounding goes the other way.
    """
    decoder = model.sam_mask_decoder
    with torch.no_grad():
        for mlp in decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight.mul_(60)
        for embedding in model.sam_prompt_encoder.point_embeddings:
            embedding.weight.mul_(3)
        decoder.pred_obj_score_head.layers[-1].weight.mul_(40)
    return model


@pytest.fixture(scope="module")
def backbone():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Sam2Backbone(lively(build_model("sam2.1_hiera_t", SIDE)), name="tiny")


@pytest.fixture(scope="module")
def predictor(backbone):
    """sam2's own, as its own function builds it."""
    made = build_sam2_video_predictor(
        "configs/sam2.1/sam2.1_hiera_t.yaml",
        device="cpu",
        hydra_overrides_extra=[f"++model.image_size={SIDE}"],
    )
    made.load_state_dict(backbone.model.state_dict())
    made.fill_hole_area = 0  # filling needs an extension for CUDA
    return made


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """A folder of JPEG files, which the predictor reads, and the pixels in them."""
    folder = tmp_path_factory.mktemp("frames")
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    for index in range(DEPTH):
        disc = (x - 0.45) ** 2 + (y - 0.5) ** 2 < (0.08 + 0.008 * index) ** 2
        grey = 60 + 90 * disc + rng.normal(0, 12, (SIDE, SIDE))
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(folder / f"{index:05}.jpg")
    pixels = [np.asarray(Image.open(file).convert("L")) for file in sorted(folder.iterdir())]
    return folder, np.stack(pixels)


@pytest.fixture(scope="module")
def case(frames):
    return VolumeCase("v", frames[1], frames[1] > 100, "disc", spacing=(2.0, 1.0, 1.0))


def engine_on(backbone, *cases, **options):
    engine = VolumeEngine(backbone, len(cases), max_steps=30, **options)
    engine.reset(range(len(cases)), cases)
    return engine


def act(engine, *prompts):
    results = [engine.step([0], [prompt])[0] for prompt in prompts]
    assert all(result.info["valid"] for result in results), results
    return results[-1]


def corners(box):
    """Pixels of SAM's."""
    return np.float32([box.x1, box.y1, box.x2, box.y2]) * SIDE - 0.5


def ask(predictor, folder, actions):
    """Logits of every slice from the predictor: forward, then afresh in reverse."""
    made = {}
    for reverse in (False, True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = predictor.init_state(str(folder))
        given: dict[int, list] = {}
        for index, prompt in actions:
            given.setdefault(index, []).append(prompt)
            box = next((p for p in given[index] if isinstance(p, AddBox)), None)
            points = [p for p in given[index] if isinstance(p, AddPoint)]
            # One call an action, with everything on the slice so far: that feeds its mask back.
            predictor.add_new_points_or_box(
                state,
                index,
                obj_id=1,
                box=None if box is None else corners(box),
                points=np.float32([[p.x, p.y] for p in points]).reshape(-1, 2) * SIDE - 0.5,
                labels=np.int32([p.positive for p in points]),
            )
        for index, _, logits in predictor.propagate_in_video(state, reverse=reverse):
            made.setdefault(index, logits[0, 0])
    return made


@pytest.mark.slow
@pytest.mark.parametrize("actions", ACTIONS.values(), ids=ACTIONS)
def test_gives_what_the_video_predictor_gives(backbone, predictor, frames, case, actions):
    engine = engine_on(backbone, case)
    act(engine, *(SlicePrompt(*action) for action in actions), Propagate())
    theirs = ask(predictor, frames[0], actions)
    episode = engine.episode(0)
    seen, prompted = 0, {index for index, _ in actions}
    assert set(theirs) == set(range(DEPTH))
    for index, logits in theirs.items():
        one = episode.state.slices.get(index)
        if one is None:
            assert index not in prompted and (logits <= TOLERANCE).all()
            continue
        image = embedding_cache(backbone).find([f"{case.content_hash}-{index}"]).values()
        (ours,) = backbone.to_image(one.logits[None], list(image))
        absent = bool((logits < -1000).any())
        assert index in prompted or not absent
        if not absent:
            torch.testing.assert_close(ours, logits, rtol=0, atol=TOLERANCE)
            clear = (logits.abs() > TOLERANCE).numpy()
            mask = episode.slice_mask(index)
            assert (mask == (logits > 0).numpy())[clear].all()
            seen += index not in prompted
    assert seen >= 5, "degenerate random weights: nothing is compared"


# around it ------------------------------------------------------------------------------------


@pytest.fixture
def short(case):
    """A volume of 6 slices that no other test has encoded."""
    image = np.ascontiguousarray(case.image[:6, ::-1])
    return VolumeCase("short", image, image > 100, "disc", spacing=(2.0, 1.0, 1.0))


def test_slices_are_encoded_once_and_those_with_prompts_stay_as_they_are(backbone, short):
    engine = engine_on(backbone, short, short)
    counters = embedding_cache(backbone).counters
    before = counters.encodes
    engine.step([0, 1], [SlicePrompt(2, BOX), SlicePrompt(4, YES)])
    states = [engine.episode(slot).state.slices for slot in (0, 1)]
    engine.step([0, 1], [Propagate(), Propagate()])
    assert counters.encodes - before == short.depth
    for slot, index in ((0, 2), (1, 4)):
        episode = engine.episode(slot)
        assert episode.state.slices[index] is states[slot][index]
        alone = engine_on(backbone, short)
        act(alone, SlicePrompt(index, (BOX, YES)[slot]), Propagate())
        assert (alone.episode(0).mask() == episode.mask()).all()


def test_what_is_remembered_matters_far_more_than_rounding(backbone, short):
    carried = []
    for prompt in (BOX, OTHER, YES):
        engine = engine_on(backbone, short)
        act(engine, SlicePrompt(2, prompt), Propagate())
        slices = engine.episode(0).state.slices
        carried.append([slices[index].logits for index in (0, 5)])
    for one, other in ((0, 1), (1, 2)):
        for ours, theirs in zip(carried[one], carried[other], strict=True):
            assert (ours - theirs).abs().mean() > 100 * TOLERANCE


def test_a_click_goes_on_from_a_carried_mask_and_undo_takes_it_all_back(backbone, short):
    engine = engine_on(backbone, short)
    act(engine, SlicePrompt(2, BOX))
    before = engine.episode(0).state
    act(engine, Propagate())
    after = engine.episode(0).state
    (carried, *_) = [index for index in after.slices if index != 2]
    assert after.prompted == [2] and after.slices[carried].carried is None
    act(engine, SlicePrompt(carried, NO))
    assert engine.episode(0).state.slices[carried].mask_input is after.slices[carried].logits
    act(engine, Undo())
    assert engine.episode(0).state is after
    act(engine, Undo())
    assert engine.episode(0).state is before


def test_without_memory_slices_go_on_by_boxes(backbone, short):
    free = {"max_shift": np.inf, "max_drift": np.inf, "max_change": 1e9, "min_overlap": 0.0}
    engine = engine_on(backbone, short, propagation=PropagationOptions(memory=False, **free))
    act(engine, SlicePrompt(2, BOX), Propagate())
    others = [one for i, one in engine.episode(0).state.slices.items() if i != 2]
    assert others and all(one.carried is not None for one in others)


def test_a_direction_may_end_where_slices_stay_empty(backbone, short, monkeypatch):
    steps = []
    memory = backbone.memory(short.depth)

    class Blind:
        """Sees the target nowhere but where it has prompts."""

        def step(self, index, row, reverse=False):
            steps.append((index, reverse))
            logits = memory.step(index, row, reverse)
            return logits if row.box is not None else torch.full_like(logits, -1.0)

    monkeypatch.setattr(backbone, "memory", lambda depth: Blind(), raising=False)
    engine = engine_on(backbone, short, propagation=PropagationOptions(max_empty=2))
    act(engine, SlicePrompt(2, BOX), Propagate())
    assert steps == [(2, False), (3, False), (1, True), (4, False), (0, True)]
    assert list(engine.episode(0).state.slices) == [2]
    with pytest.raises(EpisodeError, match="max_empty is out of range, got 0"):
        PropagationOptions(max_empty=0)


@pytest.mark.parametrize("ill", ["pred_obj_score_head", "output_hypernetworks_mlps"])
def test_numbers_that_are_not_finite_are_no_empty_masks(backbone, short, monkeypatch, ill):
    engine = engine_on(backbone, short)
    act(engine, SlicePrompt(2, BOX))
    track = backbone.model.track_step
    decoder = backbone.model.sam_mask_decoder
    modules = [m for m in getattr(decoder, ill).modules() if isinstance(m, torch.nn.Linear)]

    def fail_on_slice_4(*, frame_idx, **arguments):
        if frame_idx != 4:
            return track(frame_idx=frame_idx, **arguments)
        with monkeypatch.context() as patch:
            for module in modules:
                patch.setattr(module.bias, "data", torch.full_like(module.bias, torch.nan))
            return track(frame_idx=frame_idx, **arguments)

    monkeypatch.setattr(backbone.model, "track_step", fail_on_slice_4)
    with pytest.raises(BackboneError, match=r"not finite .* for slice 4 of volume 'short'"):
        engine.step([0], [Propagate()])
    assert len(engine.episode(0).steps) == 1


def test_memory_needs_prompts_and_not_every_backbone_has_one(backbone, short):
    (embedding,) = backbone.encode([short.rgb(0)])
    with pytest.raises(BackboneError, match="'tiny': no slice with prompts to remember on slice 0"):
        backbone.memory(6).step(0, PromptRow(embedding))
    assert isinstance(backbone, MemoryBackbone)
    assert not isinstance(load("ellipse"), MemoryBackbone)
