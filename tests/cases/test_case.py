"""A Case refuses what cannot be segmented, and keeps its pixels as they were given."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medseg_gym.cases import Case, CaseError, window_to_rgb
from medseg_gym.cases.volumes.windows import parse_window

IMAGE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
MASK = np.eye(4, 5, dtype=bool)


def case(**changes: object) -> Case:
    return Case(**{"key": "k7", "image": IMAGE, "mask": MASK, "target": "blob", **changes})


@pytest.mark.parametrize(
    ("changes", "way_out"),
    [
        ({"image": IMAGE.astype(np.float32)}, "window the intensities"),
        ({"image": np.full((4, 5, 3), np.nan)}, r"with NaN or infinite pixels; window"),
        ({"image": IMAGE.astype(np.int16)}, "got int16; window the intensities"),
        ({"image": IMAGE.tolist()}, "got list; window the intensities"),
        ({"image": IMAGE[:, :, 0]}, "repeat a grey image over three channels"),
        ({"image": np.zeros((4, 5, 4), np.uint8)}, "drop an alpha channel"),
        ({"image": np.zeros((0, 5, 3), np.uint8)}, r"must be \(H, W, 3\) RGB"),
        ({"mask": MASK.astype(np.uint8)}, "use mask > 0"),
        ({"mask": MASK.tolist()}, "got list; use mask > 0"),
        ({"mask": MASK.T}, r"mask is \(5, 4\) but the image is \(4, 5\)"),
        ({"mask": MASK[..., None]}, "must have the same size"),
        ({"spacing": (1.0,)}, "two positive millimetres"),
        ({"spacing": 1.0}, "two positive millimetres"),
        ({"spacing": (1.0, 0.0)}, "two positive millimetres"),
        ({"spacing": (1.0, float("nan"))}, "two positive millimetres"),
        ({"spacing": (float("inf"), 1.0)}, "two positive millimetres"),
        ({"spacing": (float("nan"), 1.0)}, "two positive millimetres"),
        ({"spacing": (1.0, -1.0)}, "two positive millimetres"),
        ({"spacing": (1.0, 1.0, 1.0)}, "two positive millimetres"),
        ({"spacing": ("wide", 1.0)}, "two positive millimetres"),
        ({"spacing": (None, 1.0)}, "two positive millimetres"),
        ({"spacing": ("a", "b")}, "two positive millimetres"),
    ],
)
def test_unusable_fields_name_the_case_and_the_way_out(changes, way_out):
    with pytest.raises(CaseError, match=f"case 'k7': .*{way_out}"):
        case(**changes)


@pytest.mark.parametrize("key", ["", None, 7])
def test_a_case_needs_a_key(key):
    with pytest.raises(CaseError, match="non-empty string"):
        case(key=key)


def test_pixels_are_read_only_and_fields_frozen():
    made = case()
    for array in (made.image, made.mask):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1
    with pytest.raises(FrozenInstanceError):
        made.key = "other"
    assert IMAGE.flags.writeable  # the caller's own array stays as it was


def test_only_a_scattered_image_is_copied():
    assert np.shares_memory(case().image, IMAGE)
    made = case(image=IMAGE[:, ::-1], mask=MASK[:, ::-1])
    assert made.image.flags.c_contiguous and np.array_equal(made.image, IMAGE[:, ::-1])
    assert np.array_equal(made.mask, MASK[:, ::-1])


@given(arrays(np.uint8, (4, 5, 3)), st.integers(0, 59))
def test_the_hash_goes_by_every_pixel(image, place):
    changed = image.copy()
    changed.flat[place] ^= 1
    made = case(image=image, key="a")
    assert made.content_hash == case(image=image.copy(), mask=~MASK, key="b").content_hash
    assert made.content_hash == case(image=np.asfortranarray(image)).content_hash
    assert made.content_hash != case(image=changed).content_hash


def test_the_hash_goes_by_the_shape_too():
    flat = np.zeros((2, 10, 3), np.uint8)
    other = case(image=flat.reshape(4, 5, 3))
    assert case(image=flat, mask=np.zeros((2, 10), bool)).content_hash != other.content_hash


def test_a_case_is_a_group_of_its_own_unless_told():
    assert case().group == "k7"
    assert case(group="patient 3").group == "patient 3"


def test_sizes_and_area():
    made = case(spacing=(0.5, 0.75))
    assert (made.height, made.width, made.spacing) == (4, 5, (0.5, 0.75))
    assert made.area_fraction == 4 / 20
    assert case(mask=np.zeros((4, 5), bool)).area_fraction == 0


# window_to_rgb ------------------------------------------------------------------------------------
def test_a_window_maps_its_ends_to_black_and_white():
    pixels = np.array([[-2000, -160, 40], [240, 3000, -159]], np.int16)
    rgb = window_to_rgb(pixels, -160, 240)
    assert rgb.shape == (2, 3, 3) and rgb.dtype == np.uint8
    assert rgb[..., 0].tolist() == [[0, 0, 128], [255, 255, 1]]
    assert (rgb == rgb[..., :1]).all()
    assert case(image=window_to_rgb(np.zeros((4, 5)), -1, 1)).key == "k7"


@given(arrays(np.float32, (3, 4), elements=st.floats(-4000, 4000, width=32)))
def test_a_window_keeps_the_order_of_intensities(pixels):
    grey = window_to_rgb(pixels, -1000, 1000)[..., 0].astype(int).ravel()
    order = np.argsort(pixels, axis=None)
    assert (np.diff(grey[order]) >= 0).all()


@pytest.mark.parametrize(
    ("pixels", "low", "high", "words"),
    [
        ([[0.0, np.nan]], 0, 1, "NaN or infinite pixels; replace them"),
        ([[0.0, np.inf]], 0, 1, "NaN or infinite pixels"),
        ([[0.0]], 1, 1, "low < high"),
        ([[0.0]], 2, 1, "low < high"),
        ([[0.0]], 0, np.nan, "low < high"),
        ([[0.0]], 0, np.inf, "finite"),
        ([[0.0]], -np.inf, 0, "finite"),
        ([0.0, 1.0], 0, 1, r"takes an \(H, W\) array, got shape \(2,\)"),
        (np.zeros((2, 2, 3)), 0, 1, r"takes an \(H, W\) array"),
    ],
)
def test_an_unusable_window_or_image_is_refused(pixels, low, high, words):
    with pytest.raises(CaseError, match=words):
        window_to_rgb(np.asarray(pixels), low, high)


def test_a_case_is_shared_by_deep_copies_and_frozen_after_pickling():
    import copy
    import pickle

    case = Case("a", np.zeros((4, 5, 3), np.uint8), np.ones((4, 5), bool), "all of it")
    assert copy.deepcopy([case])[0] is case
    again = pickle.loads(pickle.dumps(case))
    assert again.key == "a" and again.content_hash == case.content_hash
    with pytest.raises(ValueError, match="read-only"):
        again.mask[0, 0] = False


def test_spacing_is_kept_as_plain_floats():
    case = Case("a", IMAGE, MASK, "target", spacing=np.array([1, 0.5], np.float32))
    assert case.spacing == (1.0, 0.5) and all(type(side) is float for side in case.spacing)


@pytest.mark.parametrize(
    "limits",
    [
        (np.nan, 1),
        (0, np.nan),
        (-np.inf, 0),
        (0, np.inf),
        (5, 5),
        (6, 5),
        (-1.5e308, 1.5e308),
    ],
)
def test_windows_are_finite_and_in_order(limits):
    with pytest.raises(CaseError, match="finite with low < high"):
        window_to_rgb(np.arange(6.0).reshape(2, 3), *limits)
    with pytest.raises(CaseError, match="window="):
        parse_window(f"{limits[0]},{limits[1]}", "CT")
