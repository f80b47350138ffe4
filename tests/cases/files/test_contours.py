"""Contours of a structure set: which pixels they hold, and which slices they belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_writing import Geometry, contour, drawn, slice_dataset, uid, write, write_series
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from skimage.draw import polygon2mask

from medseg_gym.cases.dicom import DicomFormat
from medseg_gym.cases.dicom.truth.filling import fill, nesting, region_mask
from medseg_gym.cases.files import FileData, index_dataset

SIZE = (40, 48)
PLAIN, XOR = "CLOSED_PLANAR", "CLOSEDPLANAR_XOR"
OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)


def corners(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """Outline of rows top..bottom and columns left..right, half-open, between pixel centres."""
    around = [(top, left), (top, right), (bottom, right), (bottom, left)]
    return np.array(around, float) - 0.5


def box(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


def keyhole(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """In from the first corner of the outer one, round the inner one, and out again."""
    return np.concatenate([outer, outer[:1], inner, inner[:1]])


def images(root: Path, count: int = 4, **elements) -> list[Dataset]:
    noise = np.random.default_rng(0).integers(-100, 200, (count, *SIZE)).astype(np.int16)
    return write_series(root, noise, **elements)


def read(root: Path, sources: list[Dataset], items: list[Dataset], options: str = "") -> FileData:
    """The data of one region."""
    write(root / "rt.dcm", drawn(sources, {"it": items}))
    return index_dataset(DicomFormat, f"{root}?min_area=1{options}")


def notes(data: FileData) -> str:
    return "\n".join(str(defect) for defect in data.defects if defect.note)


def masks(data: FileData) -> list[np.ndarray]:
    assert not data.bad, [str(defect) for defect in data.bad]
    read = [data.case(record).mask for record in data.records]
    assert [int(mask.sum()) for mask in read] == [record.area for record in data.records]
    return read


def one_mask(root: Path, outlines: list[tuple[str, np.ndarray]], options: str = "") -> np.ndarray:
    sources = images(root)
    items = [contour(sources[1], outline, kind) for kind, outline in outlines]
    (mask,) = masks(read(root, sources, items, options))
    return mask


A, B, C = (4, 24, 4, 24), (14, 34, 14, 40), (8, 16, 8, 16)
INNERMOST = (10, 14, 10, 14)
FAR = (28, 36, 30, 44)
ONE = {
    "overlapping": ([(PLAIN, A), (PLAIN, B)], box(*A) | box(*B)),
    "twice": ([(PLAIN, A), (PLAIN, A)], box(*A)),
    "three times": ([(PLAIN, A)] * 3, box(*A)),
    "nested": ([(PLAIN, A), (PLAIN, C)], box(*A)),
    "apart": ([(PLAIN, C), (PLAIN, FAR)], box(*C) | box(*FAR)),
    "sharing an edge": ([(PLAIN, (4, 10, 4, 20)), (PLAIN, (10, 20, 4, 20))], box(4, 20, 4, 20)),
    "sharing a corner": (
        [(PLAIN, (4, 10, 4, 20)), (PLAIN, (10, 20, 20, 30))],
        box(4, 10, 4, 20) | box(10, 20, 20, 30),
    ),
    "exclusive": ([(XOR, A), (XOR, C)], box(*A) ^ box(*C)),
    "exclusive with an island": (
        [(XOR, INNERMOST), (XOR, A), (XOR, C)],
        box(*A) ^ box(*C) ^ box(*INNERMOST),
    ),
    "exclusive and overlapping": ([(XOR, A), (XOR, B)], box(*A) ^ box(*B)),
    "only the hole exclusive": ([(PLAIN, A), (XOR, C)], box(*A) & ~box(*C)),
    "the hole first": ([(XOR, C), (PLAIN, A)], box(*A) & ~box(*C)),
    "both types, apart": ([(XOR, A), (XOR, C), (PLAIN, FAR)], (box(*A) ^ box(*C)) | box(*FAR)),
    "over the border": ([(PLAIN, (-9, 12, -7, 9))], box(0, 12, 0, 9)),
}


@pytest.mark.parametrize("reverse", [False, True], ids=["", "reversed"])
@pytest.mark.parametrize("case", ONE)
def test_contours_of_a_plane_are_combined(tmp_path, case, reverse):
    outlines, expected = ONE[case]
    step = -1 if reverse else 1
    drawn_ones = [(kind, corners(*place)[::step]) for kind, place in outlines]
    assert np.array_equal(one_mask(tmp_path, drawn_ones), expected)


NESTED = {
    "a hole": ([A, C], box(*A) & ~box(*C)),
    "an island in the hole": ([C, A, INNERMOST], box(*A) & ~box(*C) | box(*INNERMOST)),
    "overlapping": ([A, B], box(*A) | box(*B)),
    "twice": ([A, A], box(*A)),
    "a hole drawn twice": ([A, C, C, A], box(*A) & ~box(*C)),
    "a hole on the border": ([A, (4, 12, 8, 16)], box(*A)),
    "a hole that crosses": ([A, (18, 30, 8, 16)], box(*A) | box(18, 30, 8, 16)),
    "a hole of one in the other": (
        [(2, 30, 2, 20), (10, 36, 10, 44), (5, 12, 5, 12)],
        box(2, 30, 2, 20) & ~box(5, 12, 5, 12) | box(10, 36, 10, 44),
    ),
    "two holes": ([(2, 38, 2, 46), C, FAR], box(2, 38, 2, 46) & ~box(*C) & ~box(*FAR)),
}


@pytest.mark.parametrize("case", NESTED)
def test_contours_inside_others_are_holes_on_request(tmp_path, case):
    places, expected = NESTED[case]
    outlines = [(PLAIN, corners(*place)) for place in places]
    assert np.array_equal(one_mask(tmp_path, outlines, "&holes=nested"), expected)
    every = np.logical_or.reduce([box(*place) for place in places])
    assert np.array_equal(one_mask(tmp_path, outlines), every)


@pytest.mark.parametrize("options", ["", "&holes=nested"])
def test_keyholes_and_crossing_outlines_are_even_odd(tmp_path, options):
    around = keyhole(corners(*A), corners(*C)[::-1])
    assert np.array_equal(one_mask(tmp_path, [(PLAIN, around)], options), box(*A) & ~box(*C))
    bow = np.array([(4.0, 4.0), (4.0, 40.0), (30.0, 4.0), (30.0, 40.0)]) + 0.25
    star = 18 + 15 * np.array(
        [(np.sin(a), np.cos(a)) for a in 0.1 + np.arange(5) * 4 * np.pi / 5]
    )  # a pentagram: its middle is surrounded twice
    for outline in (bow, star):
        expected = _even_odd(outline)
        assert np.array_equal(one_mask(tmp_path, [(PLAIN, outline)], options), expected)
    assert not expected[18, 18]


def _even_odd(outline: np.ndarray) -> np.ndarray:
    """Asks every pixel how many edges lie to its left."""
    mask = np.zeros(SIZE, bool)
    for r in range(SIZE[0]):
        for (r0, c0), (r1, c1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
            if (r0 <= r) != (r1 <= r):
                at = c0 + (r - r0) / (r1 - r0) * (c1 - c0)
                mask[r] ^= np.arange(SIZE[1]) >= at
    return mask


@given(st.lists(st.tuples(*[st.floats(-4, 44)] * 6), min_size=1, max_size=5), st.randoms())
def test_the_union_is_that_of_the_parts_in_any_order(triangles, random):
    outlines = [np.array(t).reshape(3, 2) for t in triangles]
    parts = [fill(outline, *SIZE) for outline in outlines]
    shuffled = random.sample(outlines, len(outlines))
    plain, both = [False] * len(outlines), outlines + outlines
    union = np.logical_or.reduce(parts)
    assert np.array_equal(region_mask(shuffled, plain, *SIZE), union)
    assert np.array_equal(region_mask(both, plain * 2, *SIZE), union)
    exclusive = [True] * len(outlines)
    assert np.array_equal(region_mask(shuffled, exclusive, *SIZE), np.logical_xor.reduce(parts))


@given(st.integers(0, 2**32))
def test_nesting_is_what_filling_says(seed):
    """No pixel of an outline that lies inside another is outside of that."""
    rng = np.random.default_rng(seed)
    size = (60, 60)
    outlines = []
    for _ in range(4):
        middle, radius = rng.uniform(15, 45, 2), rng.uniform(3, 24)
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
        outlines.append(middle + radius * np.c_[np.sin(angles), np.cos(angles)])
    inside = nesting(outlines)
    assert not inside.diagonal().any() and not (inside & inside.T).any()
    for inner, outer in np.argwhere(inside):
        held = polygon2mask(size, outlines[inner]) & ~polygon2mask(size, outlines[outer])
        assert not held.any()


def test_what_is_open_to_reading_is_counted(tmp_path):
    sources = images(tmp_path)
    nested = [contour(s, corners(*place)) for s in sources for place in (A, C, INNERMOST)]
    texts = notes(read(tmp_path, sources, nested))
    assert "strictly inside another one, united with it (holes=nested cuts out): 8" in texts
    assert "taken as holes" in notes(read(tmp_path, sources, nested, "&holes=nested"))
    mixed = [contour(sources[0], corners(*A)), contour(sources[0], corners(*C), XOR)]
    assert "of both types in one plane" in notes(read(tmp_path, sources, mixed))
    twice = [contour(sources[0], corners(*A), XOR)] * 2
    data = read(tmp_path, sources, twice)
    assert "contours that hold no pixel of their slice, or cancel each other: 2" in notes(data)
    assert not data.records and not data.bad


# --- slices -------------------------------------------------------------------------------------


def heights(data: FileData, sources: list[Dataset]) -> list[int]:
    """Slices that have a mask, as indices into the sources."""
    assert not data.bad, [str(defect) for defect in data.bad]
    return [int(record.key.split("/")[1][1:]) for record in data.records]


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), OBLIQUE, (0, 1, 0, 0, 0, -1)])
@pytest.mark.parametrize(
    ("lift", "expected"),
    [
        (0.0, 1),
        (1.0, 1),
        (-2.4, 1),
        (2.4, 1),
        (2.6, 2),
        (5.0, 2),
        (2.5, "lower"),  # exactly halfway
        (12.4, 3),
        (12.5, 3),  # half a spacing beyond the last slice
        (12.7, None),
        (-7.4, 0),
        (-7.6, None),
        (90.0, None),
    ],
)
def test_contours_belong_to_the_nearest_slice(tmp_path, lift, expected, orientation):
    geometry = Geometry(orientation=orientation)
    sources = images(tmp_path, geometry=geometry)
    item = contour(sources[1], corners(*A), lift=lift, reference=False)
    data = read(tmp_path, sources, [item])
    slices = heights(data, sources)
    if expected is None:
        assert not slices and not data.bad
        assert "contours that lie where no image is, over half a spacing" in notes(data)
        assert "region 'it'" in notes(data) and data.left_out
        return
    (mask,) = masks(data)
    assert mask.sum() == 400
    ahead = slices[0] if _runs_along(sources) else 3 - slices[0]
    if expected == "lower":
        assert slices == [1]  # of 1 and 2, whichever way the sources run
    else:
        assert ahead == expected
    between = "between slices and count for the nearest one: 1" in notes(data)
    assert between is (abs(lift) % 5 not in (0.0, 1.0))


def _runs_along(sources: list[Dataset]) -> bool:
    """Return whether slices are numbered in the order of the sources: up, back, left."""
    way = np.array(sources[1].ImagePositionPatient) - np.array(sources[0].ImagePositionPatient)
    return bool(way[np.abs(way).argmax()] > 0)


def test_halfway_the_image_that_is_referred_to_decides(tmp_path):
    sources = images(tmp_path)
    for source, lift in ((1, 2.5), (2, -2.5)):
        item = contour(sources[source], corners(*A), lift=lift)
        assert heights(read(tmp_path, sources, [item]), sources) == [source]


def test_a_reference_to_a_neighbour_gives_way_to_the_position(tmp_path):
    sources = images(tmp_path)
    near = contour(sources[1], corners(*A), lift=4.0)
    assert heights(read(tmp_path, sources, [near]), sources) == [2]
    far = contour(sources[0], corners(*A), lift=15.0)
    data = read(tmp_path, sources, [far])
    assert "lie elsewhere than the image that they refer to" in str(data.bad[0])


def test_contours_of_several_heights_on_one_slice_are_united(tmp_path):
    """And those of another height cut no holes: only contours in one plane do."""
    sources = images(tmp_path)
    items = [
        contour(sources[1], corners(*A), XOR, lift=-1.25),
        contour(sources[1], corners(*C), XOR, lift=-1.25),
        contour(sources[1], corners(*B), XOR, lift=1.25),
        contour(sources[1], corners(*INNERMOST), lift=0.0),
    ]
    expected = (box(*A) ^ box(*C)) | box(*B) | box(*INNERMOST)
    for options in ("", "&holes=nested"):
        (mask,) = masks(read(tmp_path, sources, items, options))
        assert np.array_equal(mask, expected)


def test_where_slices_are_missing_no_contour_is_moved_far(tmp_path):
    sources = images(tmp_path, 6)
    gone = next(p for p in tmp_path.iterdir() if p.name == f"IM{(2 * 7 + 3) % 97:02d}")
    gone.unlink()
    items = [contour(sources[1], corners(*A), lift=v, reference=False) for v in (0, 2.4, 5.0, 7.0)]
    data = read(tmp_path, [s for i, s in enumerate(sources) if i != 2], items)
    assert "contours that lie where no image is" in notes(data)
    assert "2 left out" in notes(data)
    assert heights(data, sources) == [1]


def test_irregular_slices_own_what_is_nearest_to_them(tmp_path):
    noise = np.random.default_rng(0).integers(-100, 200, (4, *SIZE)).astype(np.int16)
    sources = []
    for i, height in enumerate((0.0, 5.0, 10.0, 17.0)):
        data = slice_dataset(noise[i], i)
        data.ImagePositionPatient = [-40.0, -30.0, height]
        sources.append(data)
        write(tmp_path / f"{i}.dcm", data)
    for lift, slice_ in ((2.0, 0), (3.0, 1), (12.6, 2), (13.4, 2), (13.6, 3), (19.4, 3)):
        item = contour(sources[0], corners(*A), lift=lift, reference=False)
        assert heights(read(tmp_path, sources, [item]), sources) == [slice_]


def test_images_at_one_place_need_a_reference(tmp_path):
    sources = images(tmp_path)
    again = slice_dataset(np.eye(*SIZE, dtype=np.int16), 1, SOPInstanceUID=uid(1, 77))
    write(tmp_path / "again.dcm", again)
    item = contour(sources[1], corners(*A), reference=False)
    data = read(tmp_path, sources, [item])
    assert "several images are" in str(data.bad[0])
    for source in (again, sources[1]):
        (record,) = read(tmp_path, sources, [contour(source, corners(*A))]).records
        assert (record.files[0] == "again.dcm") is (source is again)


def test_contours_across_the_slices_are_refused(tmp_path):
    sources = images(tmp_path)
    item = contour(sources[1], corners(*A), reference=False)
    points = np.array(item.ContourData, float).reshape(-1, 3)
    points[:, 1], points[:, 2] = points[0, 1], sources[0].ImagePositionPatient[2] + points[:, 1]
    item.ContourData = [f"{v:.4f}" for v in points.ravel()]
    good = contour(sources[1], corners(*A))
    data = read(tmp_path, sources, [item, good])
    assert "1 contours of 'it' do not lie in the plane of an image" in str(data.bad[0])
    assert len(data.records) == 1


# --- what is left out ---------------------------------------------------------------------------


def test_other_kinds_of_contours_and_bare_regions_are_counted(tmp_path):
    sources = images(tmp_path)
    here = sources[1]
    point = contour(here, corners(*A)[:1], "POINT")
    line = contour(here, corners(*A), "OPEN_PLANAR")
    short = contour(here, corners(*A)[:2])
    regions = {
        "good": [contour(here, corners(*A)), point, point, line, short],
        "nothing": [],
        "points": [point],
        "": [contour(here, corners(*C))],
    }
    write(tmp_path / "rt.dcm", drawn(sources, regions))
    data = index_dataset(DicomFormat, str(tmp_path))
    texts = notes(data)
    assert "region 'good': POINT contours are no closed planar contours: 2 left out" in texts
    assert "region 'points': POINT contours are no closed planar contours: 1" in texts
    assert "region 'good': OPEN_PLANAR contours are no closed planar contours: 1" in texts
    assert "CLOSED_PLANAR contours of under three points are no closed planar contours: 1" in texts
    assert "'nothing': regions without a contour: 1" in texts
    assert "regions without a name, called by their number: 1 ('region 4')" in texts
    assert data.targets == ("good", "region 4") and not data.bad


def test_regions_of_one_name_stay_two_targets(tmp_path):
    sources = images(tmp_path)
    rt = drawn(sources, {"a": [contour(sources[1], corners(*A))], "b": []})
    rt.ROIContourSequence[1].ContourSequence = [contour(sources[1], corners(*FAR))]
    rt.StructureSetROISequence[1].ROIName = "a"
    write(tmp_path / "rt.dcm", rt)
    data = index_dataset(DicomFormat, f"{tmp_path}?min_area=1")
    regions = masks(data)
    assert [int(mask.sum()) for mask in regions] == [400, 112] and data.targets == ("a",)
    assert "names of several regions, each with its own cases: 1 ('a')" in notes(data)
    rt.StructureSetROISequence[1].ROINumber = 1
    write(tmp_path / "rt.dcm", rt)
    (defect,) = index_dataset(DicomFormat, str(tmp_path)).bad
    assert "gives the number 1 to two regions" in str(defect)


def test_an_option_that_is_none_is_named(tmp_path):
    from medseg_gym.cases import CaseError

    images(tmp_path)
    for option, choices in (("holes=yes", "drawn, nested"), ("resample=linear", "off, nearest")):
        with pytest.raises(CaseError, match=choices):
            index_dataset(DicomFormat, f"{tmp_path}?{option}")
