from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym import backbones
from medseg_gym.backbones import EllipseBackbone, Embedding, PromptRow
from medseg_gym.backbones.remote.ends import (
    MissingImages,
    RemoteBackbone,
    ServedBackbone,
    find_facts,
)
from medseg_gym.backbones.remote.wire import RemoteEmbedding, ServedFacts, pack_row, unpack_row
from medseg_gym.errors import BackboneError
from medseg_gym.prompts import AddBox, AddPoint

fractions = st.floats(0, 1)
IMAGE = np.zeros((5, 7, 3), np.uint8)
EMBEDDING = RemoteEmbedding((), (5, 7), (183, 256), "ab" * 16, IMAGE)


@given(
    box=st.none() | st.builds(AddBox, fractions, fractions, fractions, fractions),
    points=st.lists(st.builds(AddPoint, fractions, fractions, st.booleans()), max_size=4),
    mask=st.none() | st.lists(st.floats(-30, 30, width=32), min_size=6, max_size=6),
    multimask=st.booleans(),
    text=st.none() | st.text(max_size=5),
)
def test_a_row_comes_back_as_it_went(box, points, mask, multimask, text) -> None:
    logits = None if mask is None else torch.tensor(mask).reshape(2, 3)
    row = PromptRow(EMBEDDING, box, tuple(points), logits, multimask, text)
    result = unpack_row(pack_row(row), EMBEDDING, torch.device("cpu"))
    assert (result.box, result.points, result.multimask, result.text) == (
        box,
        tuple(points),
        multimask,
        text,
    )
    assert (result.mask_input is None) == (logits is None)
    if logits is not None:
        assert torch.equal(result.mask_input, logits)


def test_a_local_embedding_is_refused() -> None:
    with pytest.raises(BackboneError, match="encoded itself"):
        pack_row(PromptRow(Embedding((), (5, 7), (5, 7)), points=(AddPoint(0.5, 0.5),)))


def test_the_pixels_kept_for_sending_again_count_in_the_cache() -> None:
    assert EMBEDDING.nbytes == 105


@pytest.mark.parametrize("name", ["pocket", "ellipse"])
def test_facts_travel_as_json_and_resize_as_the_backbone_does(name) -> None:
    backbone = backbones.load(name, device="cpu")
    facts = ServedFacts.from_json(json.loads(json.dumps(find_facts(backbone).to_json())))
    assert facts == find_facts(backbone)
    image = np.random.default_rng(1).integers(0, 256, (37, 90, 3), dtype=np.uint8)
    (embedding,) = backbone.encode([image])
    logits = torch.randn(1, *facts.logits_size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(
        facts.to_image(logits, [embedding])[0], backbone.to_image(logits, [embedding])[0]
    )


def test_other_answers_are_no_facts() -> None:
    plain = find_facts(EllipseBackbone("cpu")).to_json()
    for broken in ({}, plain | {"logits_size": 3}, plain | {"framing": "stretched"}):
        with pytest.raises(BackboneError, match="not the facts"):
            ServedFacts.from_json(broken)


def test_a_backbone_with_a_way_of_its_own_cannot_be_served() -> None:
    class Flipped(EllipseBackbone):
        def to_image(self, logits, embeddings):
            return super().to_image(logits.flip(1), embeddings)

    with pytest.raises(BackboneError, match="cannot be served"):
        ServedBackbone(Flipped("cpu"))


class Direct(RemoteBackbone):
    """Both ends in one process: what is left is the messages."""

    def __init__(self, served: ServedBackbone) -> None:
        super().__init__(served.facts)
        self.served = served

    def _encode(self, images):
        return self.served.encode(images)

    def _decode(self, rows, images):
        try:
            return self.served.decode(rows)
        except MissingImages as missing:
            return self.served.decode(rows, {key: images[key] for key in missing.keys})


def test_a_remote_backbone_gives_what_the_local_one_gives() -> None:
    local = backbones.load("pocket", device="cpu")
    served = ServedBackbone(local)
    remote = Direct(served)
    assert isinstance(remote, backbones.Backbone)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*s, 3), dtype=np.uint8) for s in ((40, 60), (64, 64))]
    rows = []
    for backbone in (remote, local):
        embeddings = backbone.encode([*images, images[0]])
        logits = torch.zeros(128, 128)
        rows.append(
            [
                PromptRow(embeddings[0], AddBox(0.1, 0.2, 0.7, 0.9)),
                PromptRow(embeddings[1], points=(AddPoint(0.5, 0.5),), multimask=True),
                PromptRow(embeddings[2], None, (AddPoint(0.2, 0.3, False),), logits),
            ]
        )
    served.cache.clear()  # the serving side forgets: the client sends the pixels again
    result, expected = remote.decode(rows[0]), local.decode(rows[1])
    assert torch.equal(result.logits, expected.logits) and torch.equal(result.iou, expected.iou)
    masks = remote.to_image(result.logits, [row.embedding for row in rows[0]])
    like = local.to_image(expected.logits, [row.embedding for row in rows[1]])
    assert all(torch.equal(a, b) for a, b in zip(masks, like, strict=True))


def test_an_unfitting_mask_input_and_answer_are_named() -> None:
    served = ServedBackbone(EllipseBackbone("cpu"))
    remote = Direct(served)
    (embedding,) = remote.encode([IMAGE])
    row = PromptRow(embedding, points=(AddPoint(0.5, 0.5),), mask_input=torch.zeros(2, 2))
    with pytest.raises(BackboneError, match=r"row 0: mask_input is \(2, 2\)"):
        remote.decode([row])
    remote._decode = lambda rows, images: (np.zeros((1, 3, 3), np.float32), np.zeros(1))
    with pytest.raises(BackboneError, match="same version"):
        remote.decode([PromptRow(embedding, points=(AddPoint(0.5, 0.5),))])
