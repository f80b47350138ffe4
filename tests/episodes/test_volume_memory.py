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
from medseg_gym.prompts import AddBox, AddPoint, Clear, Undo
from medseg_gym.prompts.volumes import Propagate, SlicePrompt

SIDE, DEPTH, TOLERANCE = 64, 21, 1e-4
BOX, OTHER = AddBox(0.2, 0.25, 0.7, 0.75), AddBox(0.35, 0.2, 0.8, 0.6)
YES, NO = AddPoint(0.55, 0.45, positive=True), AddPoint(0.15, 0.8, positive=False)

ACTIONS = {
    "a box": [(4, BOX)],
    "a click on the first slice": [(0, YES)],
    "a box on the last slice": [(DEPTH - 1, BOX)],
    "a box and clicks": [(9, BOX), (9, YES), (9, NO)],
    "clicks of both kinds": [(9, NO), (9, YES)],
    "several slices": [(12, YES), (5, BOX), (12, NO), (17, OTHER), (5, YES)],
    "neighbours": [(6, BOX), (7, OTHER)],
}


def lively(model):
    """Let random weights draw masks of both signs, find the target, and mind their memory."""
    decoder = model.sam_mask_decoder
    with torch.no_grad():
        for mlp in decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight.mul_(60)
        for embedding in model.sam_prompt_encoder.point_embeddings:
            embedding.weight.mul_(3)
        decoder.pred_obj_score_head.layers[-1].weight.mul_(40)
        model.maskmem_tpos_enc.mul_(50)
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


def ask(predictor, folder, actions):
    """Logits of every slice from the predictor: forward, then afresh in reverse."""
    made = {}
    for reverse in (False, True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = predictor.init_state(str(folder))
        state["images"] = state["images"].expand(-1, 3, -1, -1)
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
                box=None if box is None else np.float32(
                    [box.x1 * SIDE, box.y1 * SIDE, box.x2 * SIDE, box.y2 * SIDE]
                ) - 0.5,
                points=np.float32([[p.x, p.y] for p in points]).reshape(-1, 2) * SIDE - 0.5,
                labels=np.int32([p.positive for p in points]),
            )
        for index, _, logits in predictor.propagate_in_video(state, reverse=reverse):
            made.setdefault(index, logits[0, 0])
    return made


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
