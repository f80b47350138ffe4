"""Numbers of a backbone are finite, or an error names backbone and case."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_gym.backbones import BackboneError, EllipseBackbone
from medseg_gym.backbones.cache import EmbeddingCache, embedding_cache
from medseg_gym.backbones.check import check
from medseg_gym.backbones.protocol import Embedding, Prediction
from medseg_gym.cases import Case
from medseg_gym.episodes import EpisodeEngine
from medseg_gym.prompts import AddBox, AddPoint, Clear, Stop, Undo

BOX = AddBox(0.2, 0.2, 0.8, 0.8)
ILL = (48, 64)


def make_case(key, height, width, absent=False):
    image = np.random.default_rng(height).integers(0, 90, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), bool)
    mask[12:30, 20:40] = not absent
    return Case(key, image, mask, "square", synthetic=True)


class Broken(EllipseBackbone):
    """The ellipse, with `value` in one place of what it gives for images of 48 x 64 pixels."""

    name = "broken-head"

    def __init__(self, where, value):
        super().__init__()
        self.where, self.value = where, value

    def encode(self, images):
        result = super().encode(images)
        if self.where != "embeddings":
            return result
        return [
            Embedding(
                (torch.zeros(3), torch.full((2, 2), self.value if e.image_size == ILL else 0.0)),
                e.image_size,
                e.input_size,
            )
            for e in result
        ]

    def decode(self, rows):
        logits, iou = super().decode(rows)
        for number, row in enumerate(rows):
            if row.embedding.image_size == ILL and self.where == "logits":
                logits[number, 7, 9] = self.value
            if row.embedding.image_size == ILL and self.where == "predicted IoU":
                iou[number] = self.value
        return Prediction(logits, iou)

    def to_image(self, logits, embeddings):
        images = [image.clone() for image in super().to_image(logits, embeddings)]
        for image, embedding in zip(images, embeddings, strict=True):
            if embedding.image_size == ILL and self.where == "logits at image size":
                image[-1, -1] = self.value
        return images


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["logits", "predicted IoU", "logits at image size"])
@pytest.mark.parametrize("absent", [False, True])
def test_no_step_is_made_of_them(where, value, absent):
    cases = [make_case("well", 64, 48), make_case("ill", *ILL, absent), make_case("fine", 50, 50)]
    engine = EpisodeEngine(Broken(where, value), 3)
    engine.reset([0, 1, 2], cases)
    with pytest.raises(BackboneError, match=rf"'broken-head': {where} .* for case 'ill':"):
        engine.step([0, 1, 2], [BOX, BOX, BOX])
    assert not any(episode.steps for episode in engine.episodes)
    with pytest.raises(BackboneError, match="case 'ill'"):
        engine.preview([engine.episode(1)], [AddPoint(0.5, 0.5)])
    assert [r.info["valid"] for r in engine.step([0, 1, 2], [BOX, Stop(), Undo()])] == [1, 1, 0]


def test_steps_that_decode_nothing_are_not_concerned():
    engine = EpisodeEngine(Broken("logits", math.nan))
    engine.reset([0], [make_case("ill", *ILL)])
    assert engine.step([0], [Clear()])[0].info["error"] == "there is nothing to clear"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_embeddings_are_refused_at_reset_and_kept_nowhere(value):
    backbone = Broken("embeddings", value)
    engine = EpisodeEngine(backbone, 2)
    cases = [make_case("well", 64, 48), make_case("ill", *ILL)]
    with pytest.raises(BackboneError, match=r"'broken-head': embeddings .* for case 'ill':"):
        engine.reset([0, 1], cases)
    assert engine.episodes == [None, None] and len(embedding_cache(backbone)) == 0
    engine.reset([0], cases[:1])


def test_embeddings_that_are_not_finite_are_not_written_to_disk():
    written = []

    class Store:
        def read(self, key):
            return None

        def write(self, key, embedding):
            written.append(key)

    cache = EmbeddingCache(store=Store())  # type: ignore[arg-type]
    images = [make_case("well", 64, 48).image, make_case("ill", *ILL).image]
    with pytest.raises(BackboneError, match="image ill-hash"):
        cache.get(Broken("embeddings", math.nan), images, ["well-hash", "ill-hash"])
    assert written == ["well-hash"] and len(cache) == 0


def test_finite_logits_whose_sum_overflows_are_fine():
    class Loud(EllipseBackbone):
        def decode(self, rows):
            logits, iou = super().decode(rows)
            return Prediction(torch.where(logits > 0, 3e38, -3e38), iou)

    cases = [make_case("a", 64, 48), make_case("b", *ILL)]
    loud, plain = EpisodeEngine(Loud(), 2), EpisodeEngine(EllipseBackbone(), 2)
    dice = []
    for engine in (loud, plain):
        engine.reset([0, 1], cases)
        dice.append([r.info["dice"] for r in engine.step([0, 1], [BOX, BOX])])
    assert dice[0] == pytest.approx(dice[1], abs=0.02)


@pytest.mark.parametrize("part", ["logits", "iou", "image"])
def test_results_of_another_shape_are_not_broadcast(part):
    class Short(EllipseBackbone):
        name = "short"

        def decode(self, rows):
            logits, iou = super().decode(rows)
            return Prediction(
                logits[:1] if part == "logits" else logits, iou[:1] if part == "iou" else iou
            )

        def to_image(self, logits, embeddings):
            whole = super().to_image(logits, embeddings)
            return [image[:1] for image in whole] if part == "image" else whole

    engine = EpisodeEngine(Short(), 2)
    engine.reset([0, 1], [make_case("a", 64, 48), make_case("b", 64, 48)])
    with pytest.raises(BackboneError, match=r"backbone 'short': (decode of 2 rows|to_image)"):
        engine.step([0, 1], [BOX, BOX])


def test_the_check_of_a_backbone_fails_instead_of_scoring():
    class Everywhere(EllipseBackbone):
        name = "all-nan"

        def decode(self, rows):
            logits, iou = super().decode(rows)
            return Prediction(logits * math.nan, iou)

    with pytest.raises(BackboneError, match="'all-nan': logits"):
        check(Everywhere(), repeats=1)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from([(64, 48), (50, 50), ILL]), min_size=1, max_size=6),
    st.sampled_from(["logits", "predicted IoU", "logits at image size"]),
    st.sampled_from([math.nan, math.inf, -math.inf]),
)
def test_exactly_the_cases_at_fault_are_named(sizes, where, value):
    cases = [make_case(f"case-{i}", *size) for i, size in enumerate(sizes)]
    engine = EpisodeEngine(Broken(where, value), len(cases))
    slots = list(range(len(cases)))
    engine.reset(slots, cases)
    ill = [case.key for case, size in zip(cases, sizes, strict=True) if size == ILL]
    if not ill:
        engine.step(slots, [BOX] * len(cases))
        return
    with pytest.raises(BackboneError) as failure:
        engine.step(slots, [BOX] * len(cases))
    assert [c.key for c in cases if f"'{c.key}'" in str(failure.value)] == ill[:5]
