"""The synthetic case source: deterministic, lazy, well formed, and not solvable without looking."""

import hashlib
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label

from medseg_gym.cases import SPLITS, CaseError, load_cases
from medseg_gym.cases.phantoms import CASES_PER_IMAGE, HARD_KINDS, SCENES, PhantomSource, load
from medseg_gym.cases.phantoms import source as source_module

MODALITIES = {"CT", "MRI", "X-ray", "ultrasound", "fundus", "endoscopy"}
SPECS = ("phantoms", "phantoms:hard", "phantoms:brain", "phantoms:chest,fundus,hard")
ROUND = CASES_PER_IMAGE * len(SCENES)  # cases until the mixed source comes back to a scene


def fingerprint(case):
    digest = hashlib.blake2b(case.image.tobytes(), digest_size=8)
    digest.update(np.packbits(case.mask).tobytes())
    return f"{case.key} {case.target} {digest.hexdigest()}"


def box_ellipse_dice(mask):
    """Dice of the ellipse that fills the tight box: what an answer without looking scores."""
    rows, columns = np.nonzero(mask)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    high, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
    up = (y - (rows.min() + rows.max()) / 2) / (high / 2)
    across = (x - (columns.min() + columns.max()) / 2) / (wide / 2)
    ellipse = up**2 + across**2 <= 1
    return 2 * (mask & ellipse).sum() / (mask.sum() + ellipse.sum())


def test_mixed_source_takes_turns_between_six_modalities():
    source = load_cases("phantoms", "train")
    assert len(source) == len(source.keys) == 100_000
    cases = [source[i] for i in range(ROUND)]
    assert {case.modality for case in cases} == MODALITIES
    groups = [list(group) for _, group in itertools.groupby(cases, lambda case: case.group)]
    assert [len(group) for group in groups] == [CASES_PER_IMAGE] * len(SCENES)
    for group in groups:
        assert len({case.target for case in group}) == CASES_PER_IMAGE
        assert all(np.shares_memory(group[0].image, case.image) for case in group)


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("variant", ["", ",hard"])
def test_cases_are_well_formed(scene, variant):
    source = load_cases(f"phantoms:{scene}{variant}", "train")
    for index in range(6 * CASES_PER_IMAGE):
        case = source[index]
        assert case.image.shape == (256, 256, 3) and case.image.dtype == np.uint8
        assert case.mask.shape == (256, 256) and case.mask.dtype == bool
        assert not case.image.flags.writeable and not case.mask.flags.writeable
        assert case.synthetic and case.source == "phantoms"
        assert case.key == source.keys[index] and case.key.startswith(case.group + "-")
        assert case.modality == SCENES[scene].modality
        assert case.target in source.targets
        assert case.target.endswith(f" in {SCENES[scene].view}")
        assert case.spacing is None or all(0.05 < s < 3 for s in case.spacing)
        assert np.ptp(case.image) > 60, "a nearly blank image"
        if not variant:
            assert np.count_nonzero(case.mask) >= 40


@pytest.mark.parametrize("spec", SPECS)
def test_vocabulary_is_fixed_and_the_same_for_all_splits(spec):
    first, *others = [load_cases(spec, split).targets for split in SPLITS]
    assert all(other == first for other in others)
    assert len(set(first)) == len(first)


def test_vocabulary_of_a_scene_is_part_of_the_whole_one():
    whole = load_cases("phantoms", "train").targets
    parts = [load_cases(f"phantoms:{scene}", "train").targets for scene in SCENES]
    assert whole == tuple(itertools.chain(*parts))
    assert load_cases("phantoms:hard", "train").targets == whole


@pytest.mark.parametrize("scene", SCENES)
def test_every_structure_of_the_vocabulary_occurs(scene):
    asked = {SCENES[scene].text(name) for name in SCENES[scene].structures}
    source = load_cases(f"phantoms:{scene}", "train")
    seen = set()
    for index in range(60 * CASES_PER_IMAGE):
        seen.add(source[index].target)
        if seen == asked:
            return
    raise AssertionError(f"never asked for: {asked - seen}")


def test_masks_cover_what_they_name():
    def by_name(scene, number):
        rng = np.random.default_rng(number)
        return SCENES[scene].draw(rng, False, "").masks

    for number in range(4):
        abdomen = by_name("abdomen", number)
        assert np.argwhere(abdomen["liver"])[:, 1].mean() < 128, "the liver is on the left"
        assert all(not np.any(m & ~abdomen["body"]) for m in abdomen.values())
        brain = by_name("brain", number)
        assert not np.any(brain["brain"] & ~brain["head"])
        right, left = (np.argwhere(brain[f"{s} lateral ventricle"]) for s in ("right", "left"))
        if len(right) and len(left):
            assert right[:, 1].mean() < left[:, 1].mean()
        chest = by_name("chest", number)
        assert np.array_equal(chest["lungs"], chest["right lung"] | chest["left lung"])
        assert not np.any(chest["lungs"] & chest["heart"])
        fundus = by_name("fundus", number)
        assert not np.any(fundus["optic cup"] & ~fundus["optic disc"])
        assert not np.any(fundus["optic disc"] & ~fundus["field of view"])


def test_boundaries_are_visible():
    """Just inside and just outside, the image differs by more than its noise would give."""
    from scipy.ndimage import binary_dilation, binary_erosion

    source, steps = load_cases("phantoms", "train"), []
    for index in range(0, 30 * CASES_PER_IMAGE):
        case = source[index]
        inside = case.mask & ~binary_erosion(case.mask, iterations=4)
        outside = binary_dilation(case.mask, iterations=4) & ~case.mask
        grey = case.image.astype(float)
        steps.append(np.abs(grey[inside].mean(axis=0) - grey[outside].mean(axis=0)).max())
    assert np.median(steps) > 25
    assert np.mean(np.array(steps) > 6) > 0.9


@pytest.mark.parametrize("spec", SPECS)
def test_same_case_twice_in_any_order_and_in_another_process(spec):
    indices = [0, 1, 5, 26, 40_003]
    source = load_cases(spec, "val")
    forwards = [fingerprint(source[i]) for i in indices]
    source_module._page.cache_clear()
    fresh = load(spec.partition(":")[2], "val")
    backwards = [fingerprint(fresh[i]) for i in reversed(indices)]
    assert backwards[::-1] == forwards
    if spec == "phantoms:hard":
        code = (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "from test_phantoms import fingerprint, load_cases\n"
            f"s = load_cases({spec!r}, 'val')\n"
            f"print('\\n'.join(fingerprint(s[i]) for i in {indices[::-1]}))"
        )
        printed = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": "7"},
        ).stdout.split("\n")
        assert printed[:-1] == backwards


def test_drawing_leaves_the_global_generator_alone():
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    source_module._page.cache_clear()
    load_cases("phantoms", "train")[77]
    assert np.array_equal(np.random.get_state()[1], before)


def test_a_key_means_the_same_case_in_the_mixed_source():
    mixed, brain = load_cases("phantoms", "test"), load_cases("phantoms:brain", "test")
    key = brain.keys[9]
    assert fingerprint(mixed[mixed.index_of(key)]) == fingerprint(brain[9])


def test_splits_share_no_image():
    images = {
        (split, case.content_hash)
        for split in SPLITS
        for spec in ("phantoms", "phantoms:hard")
        for case in (load_cases(spec, split)[i] for i in range(0, 2 * ROUND, CASES_PER_IMAGE))
    }
    assert len({content for _, content in images}) == len(images) == 3 * 2 * 12


@settings(deadline=None)
@given(index=st.integers(0, 99_999), spec=st.sampled_from(SPECS), split=st.sampled_from(SPLITS))
def test_key_and_index_round_trip(index, spec, split):
    source = load_cases(spec, split)
    key = source.keys[index]
    assert source.keys.index(key) == source.index_of(key) == index
    assert key in source.keys
    assert key.split("/")[1] == split


def test_finding_a_key_does_not_search():
    source = load_cases("phantoms", "train")
    key = source.keys[99_999]
    start = time.process_time()
    for _ in range(100):
        source.index_of(key)
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    "key",
    [
        "",
        "phantoms/train/brain/000001-0",  # another scene
        "phantoms/val/abdomen/000001-0",  # another split
        "phantoms/train/abdomen-hard/000001-0-tiny",  # another variant
        "phantoms/train/abdomen/1-0",
        "phantoms/train/abdomen/000001-4",
        "phantoms/train/abdomen/025000-0",
    ],
)
def test_foreign_keys_are_refused(key):
    source = load_cases("phantoms:abdomen", "train")
    assert key not in source.keys
    with pytest.raises(CaseError, match="has no case"):
        source.index_of(key)


def test_indices_outside_raise_and_negative_ones_count_from_the_end():
    source = load_cases("phantoms:fundus", "train")
    for index in (100_000, -100_001):
        with pytest.raises(IndexError):
            source[index]
        with pytest.raises(IndexError):
            source.keys[index]
    assert fingerprint(source[-1]) == fingerprint(source[99_999])
    assert source.keys[-1] == source.keys[99_999]
    assert source.keys[2:5] == tuple(source.keys[i] for i in (2, 3, 4))


@pytest.mark.parametrize("spec", ["phantoms:kneecap", "phantoms:hard,hard", "phantoms:brain,"])
def test_unknown_words_name_the_choices(spec):
    with pytest.raises(CaseError) as caught:
        load_cases(spec, "train")
    for word in (*SCENES, "hard"):
        assert word in str(caught.value)


def test_words_combine_in_any_order():
    one, other = load("hard,brain,abdomen", "train"), load("abdomen, brain, hard", "train")
    assert one.keys[0:20] == other.keys[0:20]
    assert one.name == "phantoms:abdomen,brain,hard"
    assert load("", "train").name == "phantoms"


@pytest.mark.parametrize("scene", SCENES)
def test_hard_kinds_are_what_they_say(scene):
    source = load_cases(f"phantoms:{scene},hard", "test")
    kinds = []
    for index in range(5 * CASES_PER_IMAGE):
        case = source[index]
        kind = case.key.rsplit("-", 1)[1]
        kinds.append(kind)
        area = int(np.count_nonzero(case.mask))
        assert (area == 0) == (kind == "absent")
        if kind == "tiny":
            assert 3 <= area <= 40
        elif kind == "two_part":
            assert label(case.mask)[1] >= 2
        elif kind == "thin":
            rows, columns = np.nonzero(case.mask)
            assert area < 0.4 * (np.ptp(rows) + 1) * (np.ptp(columns) + 1) or area < 300
    assert {kind: kinds.count(kind) for kind in HARD_KINDS} == dict.fromkeys(HARD_KINDS, 4)


def test_an_ellipse_in_the_box_is_not_the_answer():
    source = load_cases("phantoms", "train")
    scores = [box_ellipse_dice(source[i].mask) for i in range(120)]
    assert 0.72 < np.mean(scores) < 0.9
    assert np.mean(np.array(scores) < 0.85) > 0.4


def test_large_and_small_targets_occur():
    source = load_cases("phantoms", "train")
    areas = np.array([source[i].area_fraction for i in range(240)])
    assert areas.max() > 0.4
    assert np.mean(areas > 0.15) > 0.08
    assert np.mean(areas < 0.01) > 0.1


def test_at_least_forty_images_a_second():
    source = PhantomSource("train")
    source[0]
    best = 0.0
    for attempt in range(3):  # the machine is shared: the best of three
        first = 20_000 + attempt * 60 * CASES_PER_IMAGE
        start = time.process_time()
        for image in range(60):
            source[first + image * CASES_PER_IMAGE]
        best = max(best, 60 / (time.process_time() - start))
        if best >= 40:
            return
    raise AssertionError(f"{best:.0f} images a second")


def test_the_other_targets_of_an_image_are_nearly_free():
    source = PhantomSource("train")
    source[4000]
    start = time.process_time()
    for _ in range(100):
        source[4001], source[4002], source[4003]
    assert time.process_time() - start < 0.3
