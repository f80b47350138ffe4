"""HD95, NSD and boundary IoU against MONAI and against plain loops, and the laws they keep."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from medseg_gym.episodes.metrics import boundary_iou, hd95, iou, nsd, surface_scores

TAU = 2.0 + math.pi / 1e4  # no distance on a grid ties with it, whatever the precision
SPACINGS = st.none() | st.tuples(*[st.sampled_from([0.31, 0.78, 1.0, 2.5, 4.9])] * 2)


@st.composite
def pairs(draw, max_side=9):
    shape = draw(array_shapes(min_dims=2, max_dims=2, max_side=max_side))
    dense = st.integers(0, 3).map(bool) | st.just(False)
    first = draw(arrays(bool, shape, elements=dense, fill=st.just(False)))
    return first, draw(st.just(first.copy()) | arrays(bool, shape, elements=dense))


def draw_blobs(rng):
    """Two discs, one shifted, with holes, stray pixels and cuts by the edge of the image."""
    shape = rng.integers(20, 90, 2)
    y, x = np.mgrid[: shape[0], : shape[1]] / shape[:, None, None]
    masks = []
    centre = rng.uniform(0.2, 0.8, 2)
    for _ in range(2):
        (cy, cx), radius = centre + rng.normal(0, 0.08, 2), rng.uniform(0.1, 0.4)
        mask = (y - cy) ** 2 + 1.5 * (x - cx) ** 2 < radius**2
        masks.append((mask & (rng.random(shape) > 0.02)) | (rng.random(shape) > 0.999))
    return masks


def by_monai(prediction, truth, spacing):
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    tensors = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth)]
    kept = {"include_background": True, "spacing": spacing}
    with warnings.catch_warnings():  # MONAI 1.6 uses an argument of its own that it deprecates
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
        distance = compute_hausdorff_distance(*tensors, percentile=95, **kept)
        return float(distance), float(compute_surface_dice(*tensors, [TAU], **kept))


@pytest.mark.parametrize("seed", range(40))
def test_hd95_and_nsd_are_monais(seed):
    rng = np.random.default_rng(seed)
    prediction, truth = draw_blobs(rng)
    spacing = None if seed % 4 == 0 else tuple(rng.uniform(0.3, 4, 2).tolist())
    expected = by_monai(prediction, truth, spacing)
    scores = surface_scores(prediction, truth, spacing, TAU)
    assert scores[:2] == pytest.approx(expected, rel=1e-5)
    assert scores.unit == ("px" if spacing is None else "mm")


@given(pairs(), SPACINGS)
@settings(max_examples=100)
def test_hd95_and_nsd_are_monais_on_any_masks(pair, spacing):
    assume(pair[0].any() and pair[1].any())
    expected = by_monai(*pair, spacing)
    assert hd95(*pair, spacing) == pytest.approx(expected[0], rel=1e-5)
    assert nsd(*pair, TAU, spacing) == pytest.approx(expected[1], rel=1e-5)


@pytest.mark.filterwarnings("ignore:the (prediction|ground truth) of class:UserWarning")
def test_monai_has_no_distance_from_an_empty_mask_either():
    empty, full = np.zeros((4, 5), bool), np.ones((4, 5), bool)
    for pair in ((empty, full), (full, empty)):
        distance, share = by_monai(*pair, None)
        assert math.isnan(distance) and share == nsd(*pair, TAU) == 0


def border(mask):
    padded = np.pad(mask, 1)
    result = []
    for r, c in np.argwhere(padded):
        around = padded[r - 1, c], padded[r + 1, c], padded[r, c - 1], padded[r, c + 1]
        if not all(around):
            result.append((r, c))
    return result


@given(pairs(6), SPACINGS, st.sampled_from([0, 1, 2.0, 3.5]))
def test_by_definition(pair, spacing, tolerance):
    assume(pair[0].any() and pair[1].any())
    dy, dx = spacing or (1, 1)
    ours, theirs = border(pair[0]), border(pair[1])

    def nearest(here, there):
        return [min(math.sqrt(((a - c) * dy) ** 2 + ((b - d) * dx) ** 2) for c, d in there)
                for a, b in here]  # fmt: skip

    one, two = nearest(ours, theirs), nearest(theirs, ours)
    assert hd95(*pair, spacing) == pytest.approx(max(np.percentile(d, 95) for d in (one, two)))
    near = sum(d <= tolerance + 1e-9 for d in one + two)
    assert nsd(*pair, tolerance + 1e-9, spacing) == near / (len(one) + len(two))


@given(pairs(), SPACINGS)
def test_laws(pair, spacing):
    scores = surface_scores(*pair, spacing, TAU)
    assert surface_scores(*pair[::-1], spacing, TAU) == scores
    turned = surface_scores(pair[0].T, pair[1].T, spacing and spacing[::-1], TAU)
    assert turned == pytest.approx(scores)
    assert scores == (hd95(*pair, spacing), nsd(*pair, TAU, spacing), scores.unit)
    assert scores.hd95 >= 0 and 0 <= scores.nsd <= 1
    assert nsd(*pair, 0.0, spacing) <= nsd(*pair, 1.0, spacing) <= scores.nsd
    if np.array_equal(*pair):
        assert scores[:2] == (0, 1) and boundary_iou(*pair) == 1
    if spacing is not None:
        doubled = surface_scores(*pair, (2 * spacing[0], 2 * spacing[1]), 2 * TAU)
        assert doubled == pytest.approx((2 * scores.hd95, scores.nsd, "mm"))


@given(pairs(), st.integers(0, 4), st.integers(0, 4))
def test_room_around_the_masks_changes_nothing(pair, rows, columns):
    wider = [np.pad(mask, ((rows, columns), (columns, rows))) for mask in pair]
    assert surface_scores(*wider, (1.0, 2.5), TAU) == surface_scores(*pair, (1.0, 2.5), TAU)


EMPTY, FULL = np.zeros((5, 7), bool), np.ones((5, 7), bool)


def test_an_absent_target():
    assert surface_scores(EMPTY, EMPTY) == (0, 1, "px") and boundary_iou(EMPTY, EMPTY) == 1
    for pair in ((EMPTY, FULL), (FULL, EMPTY)):
        assert surface_scores(*pair, (1, 1)) == (math.inf, 0, "mm") and boundary_iou(*pair) == 0


def test_by_example():
    prediction, truth = EMPTY.copy(), EMPTY.copy()
    truth[1:4, 1:4] = True
    prediction[1:4, 3:6] = True  # the same square two columns to the right
    assert surface_scores(prediction, truth, None, 1.0) == (2, 10 / 16, "px")
    assert surface_scores(prediction, truth, (3.0, 0.5), 0.4) == (1, 6 / 16, "mm")


@given(pairs(14), st.sampled_from([0.0, 0.02, 0.1, 0.2, 0.5]))
def test_boundary_iou_by_erosions(pair, ratio):
    width = max(1, round(ratio * math.hypot(*pair[0].shape)))
    bands = []
    for mask in pair:
        inner = mask
        for _ in range(width):
            padded = np.pad(inner, 1)
            rows, columns = mask.shape
            inner = np.min(
                [padded[r : r + rows, c : c + columns] for r in range(3) for c in range(3)], axis=0
            )
        bands.append(mask & ~inner)
    assert boundary_iou(*pair, ratio) == iou(*bands)
    assert boundary_iou(*pair, 1.0) == iou(*pair)  # the band is all of the mask


@pytest.mark.parametrize("score", [hd95, nsd, boundary_iou])
def test_misuse_is_refused(score):
    with pytest.raises(ValueError, match="bool arrays of one shape"):
        score(EMPTY, FULL.T)
    with pytest.raises(ValueError, match="bool arrays of one shape"):
        score(EMPTY.astype(float), FULL)


def test_a_spacing_or_tolerance_out_of_range_is_refused():
    for spacing in ((0, 1), (1, -1), (1, 1, 1)):
        with pytest.raises(ValueError, match="two positive numbers"):
            hd95(EMPTY, FULL, spacing)
    with pytest.raises(ValueError, match="tolerance must not be negative"):
        nsd(EMPTY, FULL, -1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0, -1.0])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_spacing_that_is_no_length_is_refused_on_either_axis(bad, axis):
    mask = np.eye(6, dtype=bool)
    spacing = (bad, 1.0) if axis == 0 else (1.0, bad)
    for metric in (hd95, surface_scores):
        with pytest.raises(ValueError, match="two positive numbers"):
            metric(mask, mask[::-1], spacing=spacing)
    with pytest.raises(ValueError, match="two positive numbers"):
        nsd(mask, mask[::-1], spacing=spacing)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_tolerances_and_ratios_are_finite(bad):
    mask = np.eye(6, dtype=bool)
    with pytest.raises(ValueError, match="tolerance"):
        nsd(mask, mask[::-1], tolerance=bad)
    with pytest.raises(ValueError, match="dilation_ratio"):
        boundary_iou(mask, mask[::-1], dilation_ratio=bad)
