"""Masks that episodes begin with: providers by name, and what the option refuses."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from medseg_gym.cases import Case, load_cases
from medseg_gym.cases.check import check_cases
from medseg_gym.cases.initial import providers
from medseg_gym.cases.initial.wrong import KINDS, disc, shifted
from medseg_gym.cases.writers.convert import convert_cases
from medseg_gym.episodes.metrics import dice
from medseg_gym.errors import CaseError

PHANTOMS = "phantoms:abdomen?position=random"


def some_case(**fields) -> Case:
    truth = np.zeros((40, 60), bool)
    truth[10:25, 20:45] = True
    image = np.zeros((40, 60, 3), np.uint8)
    return Case("a/b.c", image, truth, "liver", source="mine", **fields)


@pytest.mark.parametrize("kind", KINDS)
def test_every_wrong_kind_is_wrong_and_always_the_same(kind):
    source = load_cases(f"{PHANTOMS}&initial_mask=wrong?kinds={kind}", "val")
    plain = load_cases(PHANTOMS, "val")
    scores = []
    for index in range(24):
        case, again = source[index], source[index]
        assert case.content_hash == plain[index].content_hash and case.key == plain[index].key
        assert np.array_equal(case.initial_mask, again.initial_mask)
        assert case.initial_mask.any() and not case.initial_mask.flags.writeable
        if case.mask.any():
            scores.append(dice(case.initial_mask, case.mask))
            if kind == "half":
                assert not (case.initial_mask & ~case.mask).any()
            if kind == "leaking":
                assert not (case.mask & ~case.initial_mask).any()
        else:
            scores.append(0.0)
    assert 0.1 < np.mean(scores) < 0.85 and max(scores) < 0.97


def test_kinds_are_drawn_among_alike():
    source = load_cases(f"{PHANTOMS}&initial_mask=wrong", "val")
    begun = [source[index] for index in range(60)]
    inside = [c for c in begun if c.mask.any()]
    halves = sum(not (c.initial_mask & ~c.mask).any() for c in inside)
    leaks = sum(not (c.mask & ~c.initial_mask).any() for c in inside)
    assert min(halves, leaks, len(inside) - halves - leaks) >= len(inside) // 6


@pytest.mark.parametrize(("down", "right"), [(0, 0), (3, -2), (-7, 5), (99, 0), (0, -99)])
def test_shifted_moves_by_whole_pixels_and_drops_what_leaves(down, right):
    mask = np.random.default_rng(0).random((9, 11)) < 0.4
    moved = shifted(mask, down, right)
    for row in range(9):
        for column in range(11):
            r, c = row - down, column - right
            expected = mask[r, c] if 0 <= r < 9 and 0 <= c < 11 else False
            assert moved[row, column] == expected


def test_a_disc_has_its_middle_even_outside_the_image():
    assert disc((5, 6), -3.0, 99.0, 0.2).sum() == 1


def test_files_by_pattern(tmp_path):
    (tmp_path / "a").mkdir()
    wanted = some_case().mask ^ True
    Image.fromarray((wanted * 255).astype(np.uint8)).save(tmp_path / "a" / "b.c.png")
    np.save(tmp_path / "b-liver.npy", wanted)
    for pattern in ("{key}.png", "{name}-{target}.npy"):
        given = providers.make(f"file:{tmp_path}/{pattern}")
        assert np.array_equal(given(some_case()), wanted)
        assert np.array_equal(pickle.loads(pickle.dumps(given))(some_case()), wanted)
    absent = f"file:{tmp_path}/{{source}}.png"
    assert providers.make(f"{absent}?missing=empty")(some_case()) is None
    with pytest.raises(CaseError, match=r"is not there.*missing=empty"):
        providers.make(absent)(some_case())


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("x.png", b"", "b-x.png: the file is empty"),
        ("x.png", b"no image", "is not an image"),
        ("x.npy", b"\x93NUMPY", "cannot be read"),
        ("x.npy", None, "no \\(H, W\\) array"),
    ],
)
def test_a_defective_file_is_named(tmp_path, name, content, problem):
    if content is None:
        np.save(tmp_path / f"b-{name}", np.zeros((40, 60)))
    else:
        (tmp_path / f"b-{name}").write_bytes(content)
    with pytest.raises(CaseError, match=problem):
        providers.make(f"file:{tmp_path}/{{name}}-{name}")(some_case())


def test_a_function_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def begin(case, value: bool = True):\n"
        "    return np.full(case.mask.shape, value)\n"
        "def flat(case):\n    return np.ones(7, bool)\n"
        "def none(case):\n    return None\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    assert load_cases(f"{PHANTOMS}&initial_mask=mine.py:begin", "val")[0].initial_mask.all()
    none = load_cases(f"{PHANTOMS}&initial_mask=mine.py:begin?value=no", "val")[0]
    assert none.initial_mask is not None and not none.initial_mask.any()
    assert load_cases(f"{PHANTOMS}&initial_mask=mine.py:none", "val")[0].initial_mask is None
    with pytest.raises(CaseError, match="initial_mask is \\(7,\\) but the image is"):
        load_cases(f"{PHANTOMS}&initial_mask=mine.py:flat", "val")[0]


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("initial_mask=", "names one provider"),
        ("initial_mask=wrong&initial_mask=wrong", "names one provider"),
        ("initial_mask=wrng", "wrng.*wrong"),
        ("initial_mask=wrong:3", "no argument"),
        ("initial_mask=wrong?kinds=moved,haf", "'haf'.*half"),
        ("initial_mask=wrong?kinds=", "name one of the kinds"),
        ("initial_mask=wrong?kind=half", "kinds"),
        ("initial_mask=file:masks.png", "nothing in braces"),
        ("initial_mask=file:{kay}.png", "no {kay}"),
        ("initial_mask=file:{key}.png?missing=skip", "refuse or empty"),
        ("initial_mask=json:dumps_", "dumps_"),
        ("initial_mask=nowhere.py:begin", "nowhere.py"),
    ],
)
def test_what_is_refused(option, problem):
    with pytest.raises(CaseError, match=problem):
        load_cases(f"{PHANTOMS}&{option}", "val")


def test_a_check_lists_every_defect_and_converting_refuses(tmp_path):
    spec = f"samples:multi-part?initial_mask=file:{tmp_path}/{{key}}.png"
    report = check_cases(spec)
    assert len(report.bad) == len(report.seen) == len(load_cases("samples:multi-part", "all"))
    assert "is not there" in str(report.bad[0]) and report.seen[0].area
    assert not check_cases("samples:multi-part?initial_mask=wrong").bad
    with pytest.raises(CaseError, match="leave initial_mask= out"):
        convert_cases(spec, "parquet", tmp_path / "out")


def test_the_option_goes_with_every_kind_of_source(small_cases):
    pool = load_cases(f"pool:4:{PHANTOMS}&initial_mask=wrong", "train")
    assert len(pool) == 4 and all(case.initial_mask is not None for case in pool)
    whole = load_cases("samples?initial_mask=wrong", "all")
    assert len(whole) == len(load_cases("samples", "all")) and whole.volumes is None
    assert whole[3].initial_mask is not None
    assert whole.index_of(whole.keys[3]) == 3
    assert whole.place_of(whole.keys[3]) == load_cases("samples", "all").place_of(whole.keys[3])
    assert small_cases[0].initial_mask is None


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        (np.zeros((40, 60), np.uint8), "initial_mask must be a bool array, got uint8"),
        (np.zeros((40, 61), bool), "initial_mask is \\(40, 61\\)"),
        ("a.png", "got str"),
    ],
)
def test_a_case_checks_it(mask, problem):
    with pytest.raises(CaseError, match=problem):
        some_case(initial_mask=mask)


def test_it_survives_pickling_read_only():
    case = pickle.loads(pickle.dumps(some_case(initial_mask=np.ones((40, 60), bool))))
    assert case.initial_mask.all() and not case.initial_mask.flags.writeable
