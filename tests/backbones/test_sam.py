"""SamBackbone gives what `segment_anything.SamPredictor` gives, for every row of any batch."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything import SamPredictor

from medseg_gym.backbones import PromptRow, SamBackbone
from medseg_gym.errors import BackboneError
from medseg_gym.prompts import AddBox, AddPoint

TOLERANCE = 1e-4
BOX = AddBox(0.2, 0.13, 0.77, 0.9)
CLICKS = (AddPoint(0.31, 0.42), AddPoint(0.9, 0.05, False), AddPoint(0.0, 1.0))
PROMPTS = {
    "box": (BOX, ()),
    "click": (None, CLICKS[:1]),
    "negative click": (None, CLICKS[1:2]),
    "several clicks": (None, CLICKS),
    "box and clicks": (BOX, CLICKS[:2]),
}


@pytest.fixture(scope="module", params=["tiny_sam", "larger_sam"])
def model(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def encoded(tiny_backbone, awkward_images):
    return tiny_backbone.encode(awkward_images)


def pixels(image: np.ndarray, *fractions: float) -> np.ndarray:
    """(x, y, x, y, ...) fractions as pixels of SAM's predictor."""
    height, width = image.shape[:2]
    return np.array(fractions) * np.resize([width, height], len(fractions)) - 0.5


def ask(predictor, image, box, points, mask_input, multimask):
    """Full-size logits, low-resolution logits and predicted IoU of the reference's best mask."""
    masks, iou, low = predictor.predict(
        point_coords=np.array([pixels(image, p.x, p.y) for p in points]) if points else None,
        point_labels=np.array([int(p.positive) for p in points]) if points else None,
        box=None if box is None else pixels(image, box.x1, box.y1, box.x2, box.y2),
        mask_input=mask_input,
        multimask_output=multimask,
        return_logits=True,
    )
    best = int(iou.argmax())
    return masks[best], low[best], iou[best]


@pytest.mark.parametrize("number", range(5), ids=["wide", "tall", "odd", "grey", "tiny"])
def test_it_agrees_with_the_predictor(model, awkward_images, number):
    image = awkward_images[number]
    backbone, predictor = SamBackbone(model), SamPredictor(model)
    predictor.set_image(image)
    (embedding,) = backbone.encode([image])
    shape = (backbone.image_side // 4,) * 2
    earlier = np.random.default_rng(3).normal(0, 4, shape).astype(np.float32)
    questions, rows = [], []
    for box, points in PROMPTS.values():
        for mask_input in (None, earlier):
            for multimask in (False, True):
                given_mask = None if mask_input is None else torch.from_numpy(mask_input)
                rows.append(PromptRow(embedding, box, points, given_mask, multimask))
                fed = None if mask_input is None else mask_input[None]
                questions.append((box, points, fed, multimask))
    result = backbone.decode(rows)
    full = backbone.to_image(result.logits, [embedding] * len(rows))
    undecided = 0
    for i, question in enumerate(questions):
        reference, low, iou = ask(predictor, image, *question)
        assert np.abs(result.logits[i].numpy() - low).max() < TOLERANCE
        assert abs(float(result.iou[i]) - iou) < TOLERANCE
        clear = np.abs(reference) > TOLERANCE
        assert full[i].shape == image.shape[:2]
        assert ((full[i].numpy() > 0) == (reference > 0))[clear].all()
        undecided += np.count_nonzero(~clear)
    assert undecided < 0.01 * image[..., 0].size * len(rows)


def test_prompts_masks_and_the_image_all_matter(tiny_backbone, awkward_images):
    """The comparisons would say nothing about a model that ignores what it is given."""
    wide, tall = tiny_backbone.encode([awkward_images[0], awkward_images[1]])
    rows = [PromptRow(wide, box, points) for box, points in PROMPTS.values()]
    rows += [PromptRow(tall, BOX), PromptRow(wide, BOX, mask_input=torch.ones(16, 16))]
    rows += [PromptRow(wide, None, CLICKS[:1], multimask=True)]
    logits = tiny_backbone.decode(rows).logits
    between = (logits[:, None] - logits[None]).abs().amax(dim=(2, 3))
    assert between.fill_diagonal_(1).min() > 100 * TOLERANCE
    assert (logits.std(dim=(1, 2)) > 0.1).all()


def test_multimask_takes_the_best_of_three_by_predicted_iou(tiny_sam, encoded, awkward_images):
    backbone, predictor = SamBackbone(tiny_sam), SamPredictor(tiny_sam)
    chosen = set()
    for embedding, image in zip(encoded, awkward_images, strict=True):
        predictor.set_image(image)
        for point in (AddPoint(0.1, 0.2), AddPoint(0.5, 0.9), AddPoint(0.8, 0.4, False)):
            _, iou, low = predictor.predict(
                pixels(image, point.x, point.y)[None],
                np.array([int(point.positive)]),
                multimask_output=True,
            )
            best = int(iou.argmax())
            chosen.add(best)
            result = backbone.decode([PromptRow(embedding, None, (point,), None, True)])
            assert np.abs(result.logits[0].numpy() - low[best]).max() < TOLERANCE
            assert abs(float(result.iou[0]) - iou[best]) < TOLERANCE
    assert len(chosen) > 1, "the choice was never tested"


# row independence ---------------------------------------------------------------------------------
@st.composite
def row_plans(draw):
    """Contents of a row: which image, how many clicks, a mask or none."""
    box = draw(st.none() | st.from_type(AddBox).filter(lambda box: not box.is_empty))
    fewest = 1 if box is None else 0
    points = tuple(draw(st.lists(st.from_type(AddPoint), min_size=fewest, max_size=6)))
    return draw(st.integers(0, 4)), box, points, draw(st.booleans()), draw(st.booleans())


@given(st.lists(row_plans(), min_size=2, max_size=7), st.randoms(), st.integers(1, 7))
@settings(max_examples=40)
def test_a_row_depends_on_itself_alone(tiny_sam, encoded, plans, random, decode_batch):
    backbone = SamBackbone(tiny_sam, decode_batch=decode_batch)
    noise = torch.randn(len(plans), 16, 16, generator=torch.Generator().manual_seed(1)) * 3
    rows = [
        PromptRow(encoded[number], box, points, noise[i] if masked else None, multimask)
        for i, (number, box, points, masked, multimask) in enumerate(plans)
    ]
    order = list(range(len(rows)))
    random.shuffle(order)
    together = backbone.decode([rows[i] for i in order])
    full = backbone.to_image(together.logits, [rows[i].embedding for i in order])
    for place, i in enumerate(order):
        alone = backbone.decode([rows[i]])
        assert (together.logits[place] - alone.logits[0]).abs().max() < TOLERANCE
        assert abs(together.iou[place] - alone.iou[0]) < TOLERANCE
        (image,) = backbone.to_image(alone.logits, [rows[i].embedding])
        assert (full[place] - image).abs().max() < TOLERANCE


def test_the_same_batch_twice_is_bit_identical(tiny_backbone, encoded):
    rows = [PromptRow(e, box, points) for e in encoded for box, points in PROMPTS.values()]
    first, second = tiny_backbone.decode(rows), tiny_backbone.decode(rows)
    assert torch.equal(first.logits, second.logits) and torch.equal(first.iou, second.iou)


@pytest.mark.parametrize("encode_batch", [1, 2, 8])
def test_an_embedding_depends_on_its_image_alone(tiny_sam, awkward_images, encoded, encode_batch):
    result = SamBackbone(tiny_sam, encode_batch=encode_batch).encode(awkward_images[::-1])
    for embedding, alone, image in zip(result[::-1], encoded, awkward_images, strict=True):
        assert (embedding.features[0] - alone.features[0]).abs().max() < TOLERANCE
        assert embedding.image_size == image.shape[:2]
        storage = embedding.features[0].untyped_storage()
        assert storage.nbytes() == embedding.nbytes, "an evicted image would not free its memory"


def test_the_model_is_shared_and_frozen(tiny_backbone, tiny_sam):
    assert copy.deepcopy({"backbone": tiny_backbone})["backbone"] is tiny_backbone
    assert tiny_backbone.model is tiny_sam and not tiny_sam.training
    assert not any(weight.requires_grad for weight in tiny_sam.parameters())


def test_an_image_whose_short_side_would_vanish_is_refused(tiny_backbone):
    with pytest.raises(BackboneError, match="too elongated"):
        tiny_backbone.encode([np.zeros((1, 400, 3), np.uint8)])
    tiny_backbone.encode([np.zeros((1, 100, 3), np.uint8)])
