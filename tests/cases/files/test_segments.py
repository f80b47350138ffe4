"""Frames of a SEG: how they are stored, what they leave out, and on which grid they lie."""

from __future__ import annotations

import re
from pathlib import Path

import highdicom
import numpy as np
import pytest
from dicom_writing import Geometry, segmentation, slice_dataset, write, write_series
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.pixels import pack_bits
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from medseg_gym.cases.dicom import DicomFormat
from medseg_gym.cases.dicom.frames import packed_frame
from medseg_gym.cases.dicom.truth.segmentation import segment_values
from medseg_gym.cases.files import Damaged, FileData, index_dataset

ODD = (7, 9)  # 63 pixels


def images(root: Path, size: tuple[int, int], count: int = 4, **elements) -> list[Dataset]:
    noise = np.random.default_rng(0).integers(-100, 200, (count, *size)).astype(np.int16)
    return write_series(root, noise, **elements)


def boxes(size: tuple[int, int], count: int, segments: int) -> np.ndarray:
    """(slices, rows, columns, segments) uint8, no two alike and none empty."""
    rng = np.random.default_rng(1)
    masks = np.zeros((count, *size, segments), np.uint8)
    for i in range(count):
        for s in range(segments):
            top, left = rng.integers(0, size[0] - 3), rng.integers(0, size[1] - 3)
            masks[i, top : top + 3 + i % 2, left : left + 2 + s, s] = 1
    return masks


def healthy(root: Path, options: str = "min_area=1") -> FileData:
    data = index_dataset(DicomFormat, f"{root}?{options}")
    assert not data.bad, [str(defect) for defect in data.bad]
    return data


def notes(data: FileData) -> str:
    return "\n".join(str(defect) for defect in data.defects if defect.note)


def by_place(data: FileData) -> dict[tuple[int, str], np.ndarray]:
    """Masks by slice and target."""
    return {
        (int(record.key.split("/")[1][1:]), record.target): data.case(record).mask
        for record in data.records
    }


# --- storage ------------------------------------------------------------------------------------


@given(
    st.integers(1, 12),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.sampled_from([ExplicitVRLittleEndian, ExplicitVRBigEndian]),
    st.integers(0, 9),
    st.integers(0, 2**32),
)
def test_frames_of_one_bit_follow_each_other_without_gaps(frames, size, syntax, extra, seed):
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (frames, *size)).astype(np.uint8)
    data = Dataset()
    data.file_meta = Dataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.BitsAllocated, data.NumberOfFrames = 1, frames
    data.Rows, data.Columns = size
    content = pack_bits(bits)
    dense, padded = -(-bits.size // 8), frames * -(-bits[0].size // 8)
    length = len(content) + extra * 2
    if not dense + dense % 2 < padded <= length <= padded + padded % 2:
        content = content.ljust(length, b"\0")
    data.PixelData = content
    data["PixelData"].VR = "OB"
    for number in range(frames):
        assert np.array_equal(packed_frame(data, "x", number), bits[number])
    with pytest.raises(Damaged, match="end before it"):
        packed_frame(data, "x", frames)


def test_frames_that_each_begin_at_a_byte_are_refused(tmp_path):
    masks = boxes(ODD, 16, 1)
    sources = images(tmp_path, ODD, 16)
    seg = segmentation(sources, masks, ["it"])
    seg.PixelData = b"".join(pack_bits(mask, pad=False) for mask in masks[..., 0])
    write(tmp_path / "seg.dcm", seg)
    (defect,) = index_dataset(DicomFormat, str(tmp_path)).bad
    assert "128 bytes are 16 frames that each begin at a byte" in defect.cause


@pytest.mark.parametrize("name", ["liver_1frame.dcm", "liver_expb_1frame.dcm"])
def test_real_frames_of_one_bit_are_those_of_pydicom(name):
    path = Path(get_testdata_file(name))
    assert np.array_equal(segment_values(path, name, 0), dcmread(path).pixel_array)


@pytest.mark.parametrize(("frames", "segments"), [(1, 1), (1, 2), (4, 1), (40, 3)])
@pytest.mark.parametrize("size", [ODD, (5, 5), (13, 11), (8, 8)])
def test_masks_of_odd_sizes_are_those_that_highdicom_reads(tmp_path, size, frames, segments):
    masks = boxes(size, frames, segments)
    if frames > 1:
        masks[1] = 0  # its frames are left out of the file
    sources = images(tmp_path, size, frames)
    names = ["a", "b", "c"][:segments]
    seg = segmentation(sources, masks, names)
    write(tmp_path / "seg.dcm", seg)
    assert int(seg.NumberOfFrames) == int(masks.any((1, 2)).sum())
    theirs = highdicom.seg.segread(tmp_path / "seg.dcm").get_pixels_by_source_instance(
        [source.SOPInstanceUID for source in sources],
        combine_segments=False,
        assert_missing_frames_are_empty=True,
    )
    assert np.array_equal(theirs, masks)
    shown = by_place(healthy(tmp_path))
    assert len(shown) == int(masks.any((1, 2)).sum())
    for (index, name), mask in shown.items():
        assert np.array_equal(mask, masks[index, :, :, names.index(name)])


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("kind", ["FRACTIONAL", "LABELMAP"])
def test_compressed_masks(tmp_path, kind, syntax):
    masks = boxes((35, 41), 4, 2)
    masks[..., 1] &= ~masks[..., 0]
    given_ = masks.astype(float) if kind == "FRACTIONAL" else masks[..., 0] + 2 * masks[..., 1]
    sources = images(tmp_path, (35, 41))
    seg = segmentation(sources, given_, ["a", "b"], kind)
    # (gdcm, which comes first, ends the process where it encodes some frames in RLE.)
    plugin = {"encoding_plugin": "pydicom"} if syntax == RLELossless else {}
    seg.compress(syntax, generate_instance_uid=False, **plugin)
    write(tmp_path / "seg.dcm", seg)
    shown = by_place(healthy(tmp_path))
    assert len(shown) == int(masks.any((1, 2)).sum())
    for (index, name), mask in shown.items():
        assert np.array_equal(mask, masks[index, :, :, "ab".index(name)])


@pytest.mark.parametrize("largest", [1, 2, 3, 200, 255])
def test_fractions_count_from_half_of_the_largest_value_on(tmp_path, largest):
    masks = np.zeros((2, 16, 16), float)
    masks[:, 2:10, 2:10], masks[:, 10:12] = 1.0, 0.4 if largest > 2 else 0.0
    sources = images(tmp_path, (16, 16), 2)
    seg = segmentation(sources, masks, ["it"], "FRACTIONAL", max_fractional_value=largest)
    write(tmp_path / "seg.dcm", seg)
    data = healthy(tmp_path)
    values = dcmread(tmp_path / "seg.dcm").pixel_array
    for index in range(2):
        expected = values[index].astype(int) * 2 >= largest
        assert np.array_equal(by_place(data)[index, "it"], expected)
        assert expected.sum() in (64, 64 + 32)  # 2 x 16 pixels of 0.4 are 1 of 3, below half
    assert f"(probability): pixels of at least half of {largest} belong" in notes(data)
    seg.MaximumFractionalValue = 0
    write(tmp_path / "seg.dcm", seg)
    assert "MaximumFractionalValue is 0" in str(index_dataset(DicomFormat, str(tmp_path)).bad[0])


# --- what is left out ---------------------------------------------------------------------------


def test_empty_frames_bare_segments_and_missing_labels_are_counted(tmp_path):
    masks = boxes((16, 16), 4, 3)
    masks[:2, :, :, 0] = masks[..., 2] = 0
    sources = images(tmp_path, (16, 16))
    seg = segmentation(sources, masks, ["a", "b", "c"], omit_empty_frames=False)
    seg.SegmentSequence[0].SegmentLabel = ""
    del seg.SegmentSequence[0].SegmentedPropertyTypeCodeSequence
    write(tmp_path / "seg.dcm", seg)
    data = healthy(tmp_path)
    texts = notes(data)
    assert "frames without a pixel of a segment: 6 left out" in texts
    assert "segments without a pixel in any frame: 1" in texts and "'c'" in texts
    assert "segments without a label, called by their number: 1 ('segment 1')" in texts
    assert data.targets == ("b", "segment 1")
    seg.SegmentSequence[1].SegmentLabel = "segment 1"
    write(tmp_path / "seg.dcm", seg)
    data = healthy(tmp_path)
    assert "labels of several segments, each with its own cases: 1 ('segment 1')" in notes(data)
    assert len(data.records) == 6


def test_targets_under_the_floor_and_frames_without_reference_are_counted(tmp_path):
    masks = boxes((16, 16), 4, 2)
    sources = images(tmp_path, (16, 16))
    seg = segmentation(sources, masks, ["a", "b"])
    for group in seg.PerFrameFunctionalGroupsSequence:
        del group.DerivationImageSequence
    write(tmp_path / "seg.dcm", seg)
    data = index_dataset(DicomFormat, str(tmp_path))
    assert not data.records and not data.bad
    assert "frames that refer to no image, placed by their positions: 8" in notes(data)
    ((reason, count),) = data.left_out.items()
    assert "20 pixels" in reason and "min_area=" in reason and count == 8
    with pytest.raises(Exception, match="min_area="):
        data.require_usable()


# --- grids --------------------------------------------------------------------------------------

FINE, COARSE = (40, 48), (20, 24)


def coarse_geometry(**fields) -> Geometry:
    """Pixels that each cover 2 x 2 of the images."""
    return Geometry(origin=(-40 + 2.5 / 2, -30 + 3 / 2, 100.0), spacing=(6.0, 5.0), **fields)


def elsewhere(
    root: Path,
    masks: np.ndarray,
    geometry: Geometry,
    kind: str = "BINARY",
    names: tuple[str, ...] = ("a",),
) -> Dataset:
    """A SEG that was drawn on other images, and refers to the series by its UID alone."""
    size = masks.shape[1:3]
    other = [slice_dataset(np.zeros(size, np.int16), i, geometry) for i in range(len(masks))]
    seg = segmentation(other, masks, names, kind)
    for group in seg.PerFrameFunctionalGroupsSequence:
        if "DerivationImageSequence" in group:
            del group.DerivationImageSequence
    write(root / "seg.dcm", seg)
    return seg


def twice(masks: np.ndarray) -> np.ndarray:
    return masks.repeat(2, axis=1).repeat(2, axis=2)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_a_coarse_segmentation_is_refused_with_both_grids_and_repeated_on_request(tmp_path, kind):
    images(tmp_path, FINE)
    masks = boxes(COARSE, 4, 2)
    masks[..., 1] &= ~masks[..., 0]
    given_ = {"FRACTIONAL": masks.astype(float), "LABELMAP": masks[..., 0] + 2 * masks[..., 1]}
    elsewhere(tmp_path, given_.get(kind, masks), coarse_geometry(), kind, ("a", "b"))
    (defect,) = index_dataset(DicomFormat, str(tmp_path)).bad
    assert "20 x 24 at 6 x 5 mm" in defect.cause and "40 x 48 at 3 x 2.5 mm" in defect.cause
    assert re.search(r"first pixel at \(-38.75, -28.5, 1\d\d\) mm", defect.cause)
    assert "resample=nearest" in defect.cause
    data = healthy(tmp_path, "resample=nearest&min_area=1")
    expected = twice(masks)
    shown = by_place(data)
    assert len(shown) == int(masks.any((1, 2)).sum())
    for (index, name), mask in shown.items():
        assert np.array_equal(mask, expected[index, :, :, "ab".index(name)])
    assert [r.area for r in data.records] == [int(data.case(r).mask.sum()) for r in data.records]
    assert "frames carried over to another grid: the labels are 20 x 24" in notes(data)


def test_a_segmentation_on_the_grid_is_the_same_with_the_option(tmp_path):
    sources = images(tmp_path, FINE)
    write(tmp_path / "seg.dcm", segmentation(sources, boxes(FINE, 4, 2), ["a", "b"]))
    plain, asked = (healthy(tmp_path, f"{o}min_area=1") for o in ("", "resample=nearest&"))
    assert plain.records == asked.records and "carried" not in notes(asked)


FLIPPED = {
    "rows reversed": (1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "columns reversed": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "turned": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "rows are columns": (0.0, 1.0, 0.0, 1.0, 0.0, 0.0),
}


@pytest.mark.parametrize("way", FLIPPED)
def test_frames_counted_in_another_direction(tmp_path, way):
    """A mask that covers the same place has the same pixels, whichever way it is stored."""
    images(tmp_path, FINE)
    masks = boxes(FINE, 4, 1)
    along, down = np.array(FLIPPED[way]).reshape(2, 3)
    stored = masks[:, :, :, 0]
    origin = np.array(Geometry().origin)
    spacing = Geometry().spacing
    if way == "rows are columns":
        stored, spacing = stored.transpose(0, 2, 1), spacing[::-1]
    else:
        stored = stored[:, :: int(down[1]), :: int(along[0])]
        last = (FINE[1] - 1) * spacing[1], (FINE[0] - 1) * spacing[0]
        origin = origin + np.array([last[0] * (along[0] < 0), last[1] * (down[1] < 0), 0])
    normal = np.cross(along, down)[2]
    geometry = Geometry(tuple(origin), FLIPPED[way], spacing, gap=5.0 * normal)
    elsewhere(tmp_path, stored[..., None], geometry)
    (defect,) = index_dataset(DicomFormat, str(tmp_path)).bad
    assert "rows counted along" in defect.cause and "resample=nearest" in defect.cause
    shown = by_place(healthy(tmp_path, "resample=nearest&min_area=1"))
    assert len(shown) == 4
    for (index, _), mask in shown.items():
        assert np.array_equal(mask, masks[index, :, :, 0])


def itk(array: np.ndarray, geometry: Geometry):
    """A SimpleITK image of (slices, rows, columns)."""
    import SimpleITK

    image = SimpleITK.GetImageFromArray(array)
    along, down = np.array(geometry.orientation).reshape(2, 3)
    image.SetOrigin(geometry.origin)
    image.SetSpacing((geometry.spacing[1], geometry.spacing[0], geometry.gap))
    image.SetDirection(np.stack([along, down, np.cross(along, down)], axis=1).ravel().tolist())
    return image


OTHERS = {
    "thick": Geometry(origin=(-38.1, -27.7, 98.3), spacing=(4.1, 6.3), gap=7.1),
    "thin": Geometry(origin=(-39.2, -29.3, 97.7), spacing=(1.9, 2.2), gap=1.3),
    "partly beside": Geometry(origin=(3.3, 11.9, 107.1), spacing=(3.7, 2.9), gap=4.3),
    "oblique": Geometry((-33.3, -20.1, 96.7), (0.96, 0.28, 0, -0.28, 0.96, 0), (3.1, 4.3), 3.9),
    "tilted": Geometry((-23.3, -20.1, 90.7), (0.96, 0, 0.28, 0, 1, 0), (3.1, 4.3), 3.9),
    "sagittal": Geometry((-13.3, -20.1, 118.9), (0, 1, 0, 0, 0, -1), (1.3, 4.3), 3.9),
}


@pytest.mark.parametrize("omitted", [False, True], ids=["all frames", "empty frames omitted"])
@pytest.mark.parametrize("name", OTHERS)
def test_other_grids_are_sampled_as_simpleitk_samples_a_volume(tmp_path, name, omitted):
    import SimpleITK

    images(tmp_path, FINE)
    geometry = OTHERS[name]
    labels = np.zeros((9, 22, 26), np.uint8)
    labels[1:8, 3:18, 5:21] = 1
    labels[4:6, 6:9, 2:12] = 0
    if omitted:
        labels[3] = 0
    elsewhere(tmp_path, labels[..., None], geometry)
    onto = itk(np.zeros((4, *FINE), np.uint8), Geometry())
    sampled = SimpleITK.Resample(
        itk(labels, geometry), onto, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor
    )
    expected = SimpleITK.GetArrayFromImage(sampled)
    shown = by_place(healthy(tmp_path, "resample=nearest&min_area=1"))
    assert [at for at, _ in shown] == list(np.flatnonzero(expected.any((1, 2))))
    assert len(shown) > 1
    for (index, _), mask in shown.items():
        assert np.array_equal(mask, expected[index])


def test_frames_beside_the_images_are_refused_or_counted(tmp_path):
    images(tmp_path, FINE)
    masks = boxes(COARSE, 9, 1)
    elsewhere(tmp_path, masks, coarse_geometry())
    data = healthy(tmp_path, "resample=nearest&min_area=1")
    assert len(data.records) == 4
    assert "frames that show a segment where no image is: 5 left out" in notes(data)
    assert "pixels of segments beside the images" not in notes(data)
    masks = np.zeros((4, *COARSE, 1), np.uint8)
    masks[:, 5:15, -6:] = 1
    beside = coarse_geometry()
    beside.origin = (beside.origin[0] + 15, *beside.origin[1:])  # 3 of 24 columns further
    elsewhere(tmp_path, masks, beside)
    data = healthy(tmp_path, "resample=nearest&min_area=1")
    assert "pixels of segments beside the images: 120 left out" in notes(data)
    assert [record.area for record in data.records] == [4 * 30] * 4
    beside = coarse_geometry()
    beside.origin = (900.0, 0.0, 100.0)
    elsewhere(tmp_path, masks, beside)
    (defect,) = index_dataset(DicomFormat, f"{tmp_path}?resample=nearest").bad
    assert "does not overlap the images anywhere" in defect.cause


def test_what_cannot_be_carried_over_is_said(tmp_path):
    sources = images(tmp_path, FINE)
    seg = elsewhere(tmp_path, boxes(COARSE, 4, 1), coarse_geometry())
    del seg.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
    write(tmp_path / "seg.dcm", seg)
    (defect,) = index_dataset(DicomFormat, f"{tmp_path}?resample=nearest").bad
    assert "frames that do not say where they lie: 1" in defect.cause
    elsewhere(tmp_path, boxes(COARSE, 4, 1), coarse_geometry())
    again = slice_dataset(np.eye(*FINE, dtype=np.int16), 1)
    again.SOPInstanceUID += ".7"
    write(tmp_path / "again.dcm", again)
    (defect,) = index_dataset(DicomFormat, f"{tmp_path}?resample=nearest").bad
    assert "several images lie at one place" in defect.cause
    assert len(sources) == 4
