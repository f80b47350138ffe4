"""Images of the pupil: views, made-up shapes, augmentation, batches by number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym.errors import MedSegError
from scripts.pocket.config import PocketConfig
from scripts.pocket.data.augment import recolour, turn, zoom
from scripts.pocket.data.mixture import LEAST, Mixture
from scripts.pocket.data.shapes import MODES, draw_shapes
from scripts.pocket.data.views import SIDE, square_view
from scripts.pocket.teacher import make_teaching_set, over_segment, read_teaching_set

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(9, 300), st.integers(9, 300), st.booleans())
def test_a_view_keeps_labels_on_their_pixels(seed, height, width, whole):
    labels = np.zeros((height, width), np.int16)
    labels[height // 3 :, width // 4 :] = 7
    image = (labels > 0).astype(np.uint8) * 200
    small, result = square_view(image, labels, np.random.default_rng(seed), whole)
    assert small.shape == (SIDE, SIDE, 3) and small.dtype == np.uint8
    assert result.shape == (SIDE, SIDE) and set(np.unique(result)) <= {0, 7}
    # Bilinear against nearest: they may differ beside a border alone.
    differ = (small[:, :, 0] > 100) != (result == 7)
    scale = SIDE / (0.35 * max(height, width))
    assert differ.mean() < 0.02 * max(1, scale)


def test_a_whole_view_is_padded_below_and_to_the_right():
    image = np.full((40, 120), 255, np.uint8)
    small, labels = square_view(image, None, np.random.default_rng(0), whole=True)
    assert small[:80].min() == 255 and small[90:].max() == 0 and not labels.any()


@given(seeds)
def test_shapes_have_something_to_segment_and_contrast(seed):
    image, labels = draw_shapes(np.random.default_rng(seed))
    assert image.shape == (256, 256, 3) and image.dtype == np.uint8
    assert labels.shape == (256, 256) and labels.max() >= 1
    assert image.std() > 3


def test_all_kinds_of_shapes_are_drawn():
    drawn = [draw_shapes(np.random.default_rng(seed)) for seed in range(40)]
    counts = [len(np.unique(labels)) for _, labels in drawn]
    assert min(counts) <= 5 and max(counts) >= 15 and len(MODES) == 6
    colourful = [bool((np.ptp(image, axis=2) > 8).any()) for image, _ in drawn]
    assert 4 <= sum(colourful) <= 25


@given(st.integers(0, 7))
def test_symmetries_move_channels_alike(symmetry):
    rng = np.random.default_rng(0)
    plane = rng.integers(0, 9, (6, 6))
    stacked = np.stack([plane, plane + 1])
    turned = turn(stacked, symmetry, (1, 2))
    assert np.array_equal(turned[0], turn(plane, symmetry))
    assert np.array_equal(turned[1], turn(plane, symmetry) + 1)


def test_the_eight_symmetries_differ():
    plane = np.arange(9).reshape(3, 3)
    assert len({turn(plane, k).tobytes() for k in range(8)}) == 8


@given(seeds)
def test_zoom_moves_image_and_planes_together(seed):
    planes = np.zeros((1, 64, 64), np.int32)
    planes[0, 20:44, 16:40] = 5
    image = np.repeat((planes[0] > 0).astype(np.uint8)[:, :, None] * 255, 3, axis=2)
    moved, result = zoom(image, planes, np.random.default_rng(seed))
    differ = (moved[:, :, 0] > 127) != (result[0] == 5)
    assert differ.mean() < 0.03 and set(np.unique(result)) <= {0, 5}


@given(seeds)
def test_recolouring_keeps_the_shape(seed):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    result = recolour(image, np.random.default_rng(seed))
    assert result.shape == image.shape and result.dtype == np.uint8


@pytest.mark.parametrize("recipe", ["distil", "scratch"])
def test_batches_are_drawn_by_number(teaching, recipe):
    config = PocketConfig(recipe=recipe, images=3, targets=2)
    mixture = Mixture(config, teaching)
    for number in range(4):
        batch, again = mixture[number], Mixture(config, teaching)[number]
        assert torch.equal(batch.pixels, again.pixels) and torch.equal(batch.truths, again.truths)
        assert batch.pixels.shape == (3, 3, 256, 256) and batch.truths.shape == (6, 256, 256)
        assert batch.truths.sum((1, 2)).min() >= LEAST
        assert len(batch.embeddings) == len(batch.taught)
        assert recipe == "distil" or not len(batch.taught)
    other = Mixture(config, teaching, rank=1)[0]
    assert not torch.equal(other.pixels, mixture[0].pixels)


def test_the_teacher_is_heard_only_where_it_looked(teaching):
    """A zoomed or recoloured view may keep its embedding only if its geometry did not change."""
    config = PocketConfig(images=8, targets=1)
    mixture = Mixture(config, teaching)
    heard = sum(len(mixture[n].taught) for n in range(6))
    assert 3 <= heard <= 24  # a third of 48 are views, three fifths of those are not zoomed


def test_without_a_teaching_set_it_says_how_to_make_one(tmp_path):
    with pytest.raises(MedSegError, match=r"scripts\.pocket teach"):
        read_teaching_set(tmp_path)
    with pytest.raises(MedSegError, match="real_images"):
        next(make_teaching_set(tmp_path / "none.npz", tmp_path, 1))


def test_over_segmentation_covers_the_image():
    image, _ = draw_shapes(np.random.default_rng(3))
    regions = over_segment(image, np.random.default_rng(0))
    assert regions.dtype == np.int16 and regions.min() >= 1 and regions.max() > 1


@pytest.mark.slow
def test_the_teacher_writes_what_the_mixture_reads(tmp_path):
    """LiteMedSAM itself, on one real image and one phantom."""
    from medseg_gym.cases import load_cases
    from scripts.pocket import teacher

    case = load_cases("samples", "train")[0]
    np.savez(
        tmp_path / "real_images.npz",
        **{"image/chest-000": case.image[:, :, 0], "labels/chest-000": case.mask.astype(np.int16)},
    )
    lines = list(make_teaching_set(tmp_path / "real_images.npz", tmp_path / "set", phantoms=1))
    assert lines == ["teacher-0000.safetensors: 1 of 1"]
    written = (tmp_path / "set" / "teacher-0000.safetensors").stat().st_mtime_ns
    list(make_teaching_set(tmp_path / "real_images.npz", tmp_path / "set", phantoms=1))
    assert (tmp_path / "set" / "teacher-0000.safetensors").stat().st_mtime_ns == written
    (shard,) = read_teaching_set(tmp_path / "set")
    assert len(shard["image"]) == teacher.VIEWS["chest"] + 1 and shard["synthetic"].sum() == 1
    assert shard["embedding"].shape == (3, 256, 32, 32) and shard["embedding"].isfinite().all()
    assert len(shard["mask"]) == len(shard["owner"])
    batch = Mixture(PocketConfig(images=2, targets=1), tmp_path / "set")[0]
    assert batch.pixels.shape == (2, 3, 256, 256)
