"""The image-blind control draws what it says, bit for bit the same in any batch."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym.backbones import BackboneError, EllipseBackbone, PromptRow, load
from medseg_gym.prompts import AddBox, AddPoint

BACKBONE = EllipseBackbone()
SIZES = [(200, 300), (97, 64), (256, 256), (31, 77)]
EMBEDDINGS = BACKBONE.encode([np.zeros((*size, 3), np.uint8) for size in SIZES])


def draw(*prompts, size: int = 0, backbone: EllipseBackbone = BACKBONE) -> np.ndarray:
    """The mask that boxes and clicks make on an image of one of the sizes."""
    boxes = [p for p in prompts if isinstance(p, AddBox)]
    clicks = tuple(p for p in prompts if isinstance(p, AddPoint))
    row = PromptRow(EMBEDDINGS[size], boxes[0] if boxes else None, clicks)
    logits = backbone.decode([row]).logits
    return backbone.to_image(logits, [row.embedding])[0].numpy() > 0


def disc(x: float, y: float, radius: float = 0.08, size: int = 0) -> np.ndarray:
    """Pixels whose centre is within `radius` (a fraction of each axis) of a point."""
    height, width = SIZES[size]
    rows, columns = np.mgrid[:height, :width]
    return ((columns + 0.5) / width - x) ** 2 + ((rows + 0.5) / height - y) ** 2 < radius**2


@pytest.mark.parametrize("size", range(len(SIZES)))
@pytest.mark.parametrize("box", [AddBox(0.1, 0.2, 0.7, 0.9), AddBox(0, 0, 1, 1)], ids=repr)
def test_a_box_holds_its_inscribed_ellipse(size, box):
    mask = draw(box, size=size)
    height, width = SIZES[size]
    area = (box.x2 - box.x1) * width * (box.y2 - box.y1) * height
    assert mask.sum() == pytest.approx(math.pi / 4 * area, rel=0.02)
    rows, columns = np.nonzero(mask)
    result = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    asked = np.array([box.x1, box.y1, box.x2, box.y2]) * [width, height, width, height]
    assert np.abs(result - asked).max() <= 3, "the ellipse touches all four sides"
    assert np.array_equal(mask, mask[::-1, ::-1]) == (box.x1 == 0)


def test_a_positive_click_adds_a_disc_and_nothing_else():
    mask = draw(AddPoint(0.3, 0.6))
    expected = disc(0.3, 0.6)
    assert (mask ^ expected).sum() < 0.1 * expected.sum()
    box = draw(AddBox(0.5, 0.1, 0.9, 0.5))
    assert np.array_equal(draw(AddBox(0.5, 0.1, 0.9, 0.5), AddPoint(0.3, 0.6)), box | mask)


def test_a_negative_click_cuts_a_disc_out():
    box, cut = AddBox(0.2, 0.2, 0.8, 0.8), AddPoint(0.5, 0.5, positive=False)
    before, after = draw(box), draw(box, cut)
    removed = before & ~after
    assert (removed ^ disc(0.5, 0.5)).sum() < 0.1 * removed.sum()
    assert not (after & ~before).any()


def test_of_two_clicks_in_one_place_the_later_counts():
    plus, minus = AddPoint(0.5, 0.5), AddPoint(0.5, 0.5, positive=False)
    assert draw(minus, plus)[100, 150] and not draw(plus, minus)[100, 150]


def test_there_is_nothing_beyond_the_prompts():
    assert not draw(AddPoint(0.5, 0.5, positive=False)).any()
    assert not (draw(AddPoint(0.3, 0.6)) & ~disc(0.3, 0.6, radius=0.09)).any()


def test_the_radius_is_an_option():
    wide = draw(AddPoint(0.5, 0.5), backbone=EllipseBackbone(radius=0.2))
    assert wide.sum() == pytest.approx(math.pi * 0.2**2 * 200 * 300, rel=0.03)


BOXES = st.none() | st.from_type(AddBox).filter(lambda box: not box.is_empty)
CLICKS = st.lists(st.from_type(AddPoint), max_size=4).map(tuple)


@given(st.lists(st.tuples(st.integers(0, 3), BOXES, CLICKS), min_size=1, max_size=9), st.randoms())
def test_a_row_is_bit_identical_in_any_batch(plans, random):
    rows = [PromptRow(EMBEDDINGS[size], box, clicks) for size, box, clicks in plans]
    random.shuffle(rows)
    together = BACKBONE.decode(rows)
    images = BACKBONE.to_image(together.logits, [row.embedding for row in rows])
    for row, logits, image in zip(rows, together.logits, images, strict=True):
        alone = BACKBONE.decode([row])
        assert torch.equal(alone.logits[0], logits)
        assert torch.equal(BACKBONE.to_image(alone.logits, [row.embedding])[0], image)


def test_it_does_not_look_at_the_image():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
    for embedding in BACKBONE.encode([noise, np.zeros_like(noise)]):
        assert embedding.features == () and embedding.nbytes == 0
        assert embedding.image_size == (40, 50)


def test_it_is_shared_and_takes_no_weights(tmp_path):
    assert copy.deepcopy({"backbone": BACKBONE})["backbone"] is BACKBONE
    weights = tmp_path / "weights.pth"
    weights.touch()
    with pytest.raises(
        BackboneError, match=r"'ellipse' has no weights to read from .*weights\.pth"
    ):
        load("ellipse", checkpoint=weights)
