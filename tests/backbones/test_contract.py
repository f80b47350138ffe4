"""The contract of backbones, over all that need no weight file."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from medseg_gym.backbones import PROMPT_KINDS, Backbone, PromptRow, available, load
from medseg_gym.prompts import AddBox, AddPoint

BOX, CLICK = AddBox(0.2, 0.3, 0.8, 0.7), AddPoint(0.4, 0.5)


@pytest.fixture(
    scope="module",
    params=["tiny", *(name for name, spec in available().items() if spec.checkpoint is None)],
)
def backbone(request):
    if request.param == "tiny":
        return request.getfixturevalue("tiny_backbone")
    return load(request.param, device="cpu")


@pytest.fixture(scope="module")
def images(awkward_images):
    """A wide image, and a tall one without any contrast to scale by."""
    return awkward_images[0], np.full((75, 31, 3), 99, np.uint8)


@pytest.fixture(scope="module")
def embeddings(backbone, images):
    return backbone.encode(images)


def test_it_says_who_it_is(backbone):
    assert isinstance(backbone, Backbone) and backbone.name
    assert backbone.device == torch.device("cpu")
    assert backbone.prompt_kinds and backbone.prompt_kinds <= set(PROMPT_KINDS)
    assert backbone.trained_kinds <= backbone.prompt_kinds
    assert isinstance(backbone.takes_mask_input, bool)
    assert copy.deepcopy(backbone) is backbone


def test_embeddings_know_their_image(backbone, embeddings, images):
    for embedding, image in zip(embeddings, images, strict=True):
        assert tuple(embedding.image_size) == image.shape[:2]
        held = [t.numel() * t.element_size() for t in embedding.features]
        assert embedding.nbytes == sum(held)
    assert backbone.encode([]) == []


def test_a_mixed_batch_has_the_promised_shapes(backbone, embeddings, images):
    questions = {"box": (BOX, ()), "point": (None, (CLICK,))}
    rows = [
        PromptRow(embedding, box, points)
        for embedding in embeddings
        for kind, (box, points) in questions.items()
        if kind in backbone.prompt_kinds
    ]
    logits, iou = backbone.decode(rows)
    assert logits.ndim == 3 and len(logits) == len(rows) and logits.dtype == torch.float32
    assert iou.shape == (len(rows),) and iou.dtype == torch.float32
    assert logits.isfinite().all() and iou.isfinite().all()
    images = backbone.to_image(logits, [row.embedding for row in rows])
    assert [tuple(image.shape) for image in images] == [row.embedding.image_size for row in rows]
    if backbone.takes_mask_input:
        fed = [
            PromptRow(row.embedding, row.box, row.points, mask_input=earlier)
            for row, earlier in zip(rows, logits, strict=True)
        ]
        again = backbone.decode(fed)
        assert again.logits.shape == logits.shape and not torch.equal(again.logits, logits)


def test_a_row_does_not_hear_its_neighbours(backbone, embeddings):
    alone = backbone.decode([PromptRow(embeddings[0], BOX)])
    crowd = [PromptRow(embeddings[1], BOX, (CLICK,) * 3), PromptRow(embeddings[0], BOX)]
    together = backbone.decode(crowd)
    assert (together.logits[1] - alone.logits[0]).abs().max() < 1e-4
    assert abs(together.iou[1] - alone.iou[0]) < 1e-4
