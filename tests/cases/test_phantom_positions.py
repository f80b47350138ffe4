"""Random positions: the usual place of a structure tells little, and all else stays as promised."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_gym.annotators.box import box_iou, tight_box
from medseg_gym.cases import SPLITS, CaseError, load_cases
from medseg_gym.cases.phantoms import CASES_PER_IMAGE, HARD_KINDS, SCENES
from medseg_gym.cases.phantoms.positions import Placement, add_decoys
from medseg_gym.prompts import AddBox


def median_box_iou(spec, count=40):
    """Mean IoU of the boxes with their target's median box: what the place alone tells."""
    source, boxes = load_cases(spec, "train"), {}
    for index in range(count * CASES_PER_IMAGE):
        case = source[index]
        if (box := tight_box(case.mask)) is not None:
            boxes.setdefault(case.target, []).append(box)
    scores = []
    for members in boxes.values():
        edges = [[b.x1, b.y1, b.x2, b.y2] for b in members]
        usual = AddBox(*np.median(edges, axis=0))
        scores += [box_iou(usual, box) for box in members]
    return np.mean(scores)


@pytest.mark.parametrize("scene", SCENES)
def test_the_usual_place_is_worth_less_than_half(scene):
    usual = median_box_iou(f"phantoms:{scene}")
    # Endoscopy has no usual places to begin with.
    assert median_box_iou(f"phantoms:{scene}?position=random") < max(usual / 2, 0.1)


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("split", SPLITS)
def test_a_tenth_of_the_targets_is_absent_and_the_others_are_there(scene, split):
    source = load_cases(f"phantoms:{scene}?position=random", split)
    empty = 0
    for index in range(50 * CASES_PER_IMAGE):
        case = source[index]
        area = np.count_nonzero(case.mask)
        assert area == 0 or area >= 45
        assert case.target in source.targets and "-random/" in case.key
        empty += area == 0
        assert source.keys.index(case.key) == index
    assert 0.04 < empty / (50 * CASES_PER_IMAGE) < 0.17


def test_hard_cases_keep_their_promise_there():
    source = load_cases("phantoms:hard?position=random", "val")
    kinds = set()
    for index in range(len(SCENES) * CASES_PER_IMAGE * 5):
        case = source[index]
        kind = case.key.rsplit("-", 1)[1]
        kinds.add(kind)
        area = np.count_nonzero(case.mask)
        assert (area == 0) == (kind == "absent")
        assert kind != "tiny" or 3 <= area <= 40
    assert kinds == set(HARD_KINDS)


def test_images_of_the_usual_places_stay_what_they_were():
    usual = load_cases("phantoms:brain", "test")
    assert (
        load_cases("phantoms:brain?position=usual", "test").name == usual.name == "phantoms:brain"
    )
    moved = load_cases("phantoms:brain?position=random", "test")
    assert moved.name == "phantoms:brain?position=random" and moved.targets == usual.targets
    assert moved.keys[0] not in usual.keys and usual.keys[0] not in moved.keys
    assert moved[0].key == load_cases(moved.name, "test").keys[0]
    with pytest.raises(CaseError, match=r"usual or random, got 'randm'.*random"):
        load_cases("phantoms:brain?position=randm")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_image_and_truth_move_together(seed):
    """The pixels under a moved mask are those that were under it before."""
    rng = np.random.default_rng(seed)
    drawing = SCENES["chest"].draw(rng, False, "")
    place = Placement.draw(rng)
    moved = place.apply(drawing)
    assert moved.image.dtype == np.uint8 and moved.image.shape == (256, 256, 3)
    assert set(moved.masks) == {
        name.replace("left", "?").replace("right", "left").replace("?", "right")
        if place.mirrored
        else name
        for name in drawing.masks
    }
    for name, mask in moved.masks.items():
        if np.count_nonzero(mask) < 400:
            continue
        before = name
        if place.mirrored:
            before = name.replace("left", "?").replace("right", "left").replace("?", "right")
        old = drawing.image[drawing.masks[before]].mean()
        whole = np.count_nonzero(drawing.masks[before]) * place.scale**2
        if np.count_nonzero(mask) > 0.95 * whole:  # all of it is in the image
            assert abs(moved.image[mask].mean() - old) < 6
            assert np.count_nonzero(mask) < 1.05 * whole + 60


def test_a_placement_of_nothing_changes_nothing():
    drawing = SCENES["abdomen"].draw(np.random.default_rng(0), False, "")
    same = Placement(angle=0.0, scale=1.0, shift=(0.0, 0.0), mirrored=False).apply(drawing)
    np.testing.assert_array_equal(same.image, drawing.image)
    assert all(np.array_equal(same.masks[name], drawing.masks[name]) for name in drawing.masks)
    assert same.spacing == drawing.spacing


@pytest.mark.parametrize("scene", SCENES)
def test_decoys_look_alike_and_touch_nothing_that_has_a_name(scene):
    changed = 0
    for seed in range(6):
        drawing = SCENES[scene].draw(np.random.default_rng(seed), False, "")
        decoyed = add_decoys(np.random.default_rng(seed), drawing)
        assert decoyed.masks is drawing.masks
        differs = np.abs(decoyed.image.astype(int) - drawing.image).max(axis=2) > 12
        small = [m for m in drawing.masks.values() if 45 <= np.count_nonzero(m) <= 0.25 * 256**2]
        inner = np.logical_or.reduce(small) if small else np.zeros((256, 256), bool)
        # Edges are soft: a pixel or two beyond the border may change a little.
        assert np.count_nonzero(differs & inner) < 0.02 * max(np.count_nonzero(inner), 1) + 30
        changed += np.count_nonzero(differs & ~inner)
    assert changed > 300


@pytest.mark.parametrize("position", ["usual", "random"])
@pytest.mark.parametrize("scene", SCENES)
def test_outlines_are_the_four_cases_then_all_others_of_the_scene(scene, position):
    source = load_cases(f"phantoms:{scene}?position={position}", "val")
    structures = [SCENES[scene].text(name) for name in SCENES[scene].structures]
    others = 0
    for first in range(0, 20 * CASES_PER_IMAGE, CASES_PER_IMAGE):
        cases = [source[first + k] for k in range(CASES_PER_IMAGE)]
        outlines = source.outlines(first + 2)
        for case, (text, mask) in zip(cases, outlines, strict=False):
            assert text == case.target and np.array_equal(mask, case.mask)
        texts = [text for text, _ in outlines]
        assert len(set(texts)) == len(texts) and set(texts[4:]) <= set(structures)
        for _, mask in outlines:
            assert mask.dtype == bool and mask.shape == cases[0].mask.shape
            assert not mask.any() or np.count_nonzero(mask) >= 45
        others += len(outlines) - CASES_PER_IMAGE
    assert others


def test_outlines_of_hard_images_and_of_other_sources_are_those_of_their_cases():
    hard = load_cases("phantoms:fundus,hard", "val")
    assert [text for text, _ in hard.outlines(5)] == [hard[4 + k].target for k in range(4)]
    real = load_cases("samples", "test")
    (only,) = real.outlines(3)
    assert only[0] == real[3].target and np.array_equal(only[1], real[3].mask)
    begun = load_cases("phantoms:fundus?initial_mask=wrong", "val")
    assert len(begun.outlines(2)) == len(load_cases("phantoms:fundus", "val").outlines(2)) > 4
