"""DICOM files become the cases that pydicom, highdicom and nibabel say are in them."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path

import highdicom
import numpy as np
import pytest
from dicom_writing import (
    AXIAL,
    Geometry,
    segmentation,
    slice_dataset,
    structure_set,
    uid,
    write,
    write_series,
)
from hypothesis import given
from hypothesis import strategies as st
from opening import open_dataset, open_healthy
from pydicom import Dataset, dcmread
from pydicom import Sequence as Items
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pack_bits, pixel_array
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless
from skimage.draw import polygon
from volume_writing import lungs, piece, save

from medseg_gym.cases import CaseError
from medseg_gym.cases.dicom import DicomFormat
from medseg_gym.cases.dicom.codestream import codestream_size
from medseg_gym.cases.dicom.facts import read_facts
from medseg_gym.cases.dicom.images import read_rgb_frame
from medseg_gym.cases.dicom.truth.filling import fill
from medseg_gym.cases.dicom.truth.segmentation import scan_segmentation, segment_values
from medseg_gym.cases.files import Damaged, index_dataset
from medseg_gym.cases.nifti import NiftiFormat
from medseg_gym.cases.volumes import Window, parse_window, show

FILE = Window("file")

opened = partial(open_dataset, DicomFormat)
healthy = partial(open_healthy, DicomFormat)


def both_lungs() -> tuple[np.ndarray, np.ndarray]:
    """CT (6, 64, 64) int16 and masks (6, 64, 64, 2) uint8 of the right and the left lung."""
    pixels, labels = piece()
    return pixels, np.stack([labels == 5, labels == 6], axis=3).astype(np.uint8)


# --- pixels -----------------------------------------------------------------------------------

GREY = (
    "CT_small.dcm MR_small.dcm MR_small_RLE.dcm MR_small_bigendian.dcm MR_small_implicit.dcm "
    "MR_small_jp2klossless.dcm MR_small_jpeg_ls_lossless.dcm MR_small_padded.dcm 693_J2KI.dcm "
    "J2K_pixelrep_mismatch.dcm JPEG2000.dcm image_dfl.dcm "
    "JPEGLSNearLossless_08.dcm JPEGLSNearLossless_16.dcm examples_overlay.dcm"
).split()
COLOUR = (
    "SC_rgb_rle.dcm SC_rgb_jpeg_gdcm.dcm SC_rgb_jpeg_dcmtk.dcm SC_rgb_jls_lossy_line.dcm "
    "SC_rgb_small_odd.dcm SC_ybr_full_422_uncompressed.dcm examples_jpeg2k.dcm GDCMJ2K_TextGBR.dcm"
).split()
FRAMES = "SC_rgb_rle_2frame.dcm examples_ybr_color.dcm".split()
TWELVE_BITS = "JPEG-lossy.dcm JPGExtended.dcm".split()


@pytest.mark.parametrize("name", GREY)
def test_real_grey_files_are_shown_as_pydicom_shows_them(name):
    path = Path(get_testdata_file(name))
    whole = name == "image_dfl.dcm"
    if not name.startswith("JPEGLS"):  # those have no UIDs
        facts = read_facts(path, name)
        assert (facts["kind"], facts["whole"]) == ("image", whole)
    rgb = read_rgb_frame(path, name, 0, FILE, "MRI", whole)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = dcmread(path)
        values = apply_modality_lut(data.pixel_array, data)
        shown = apply_voi_lut(values, data, index=0)
    if "WindowCenter" not in data:
        low, high = np.percentile(values[values != 0], [0.5, 99.5])
        assert np.array_equal(rgb, show(values, low, high))
        return
    # pydicom's window ends at the values that the file's bits can hold.
    ends = np.array([0, 2**data.BitsStored - 1]) - data.PixelRepresentation * 2 ** (
        data.BitsStored - 1
    )
    ends = ends * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
    expected = (shown - ends[0]) / (ends[1] - ends[0]) * 255
    assert np.abs(rgb[:, :, 0] - expected).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("name", TWELVE_BITS)
def test_what_no_free_plugin_decodes_is_said(name):
    """The only decoder of 12-bit lossy JPEG, pylibjpeg-libjpeg, is under the GPL."""
    if importlib.util.find_spec("libjpeg"):
        pytest.skip("pylibjpeg-libjpeg is installed")
    with pytest.raises(Damaged, match="12-bit"):
        read_rgb_frame(Path(get_testdata_file(name)), name, 0, FILE, "")


@pytest.mark.parametrize("name", COLOUR)
def test_real_colour_files_keep_their_colours(name):
    path = Path(get_testdata_file(name))
    expected = pixel_array(path)
    assert np.array_equal(read_rgb_frame(path, name, 0, FILE, ""), expected)


@pytest.mark.parametrize(
    ("dataset_format", "library"), [(DicomFormat, "pydicom"), (NiftiFormat, "nibabel")]
)
def test_without_the_library_no_file_is_called_damaged(
    tmp_path, monkeypatch, dataset_format, library
):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(CaseError, match=rf"needs {library}; pip install 'medseg-gym\[data\]'"):
        index_dataset(dataset_format, str(tmp_path))


@pytest.mark.parametrize("name", FRAMES)
def test_frames_are_read_one_by_one(name):
    path = Path(get_testdata_file(name))
    data = dcmread(path)
    facts = read_facts(path, name)
    assert facts["frames"] == int(data.NumberOfFrames) > 1
    for frame in {0, facts["frames"] - 1}:
        expected = pixel_array(data, index=frame)
        for whole in (False, True):
            assert np.array_equal(read_rgb_frame(path, name, frame, FILE, "", whole), expected)


def test_a_palette_becomes_its_colours():
    from pydicom.pixels import apply_color_lut

    path = Path(get_testdata_file("examples_palette.dcm"))
    data = dcmread(path)
    colours = apply_color_lut(data.pixel_array, data)
    rgb = read_rgb_frame(path, "p", 0, FILE, "")
    assert np.array_equal(rgb, (colours >> 8).astype(np.uint8))
    assert len(np.unique(rgb.reshape(-1, 3), axis=0)) > 20


@pytest.mark.parametrize("name", GREY + COLOUR)
def test_the_size_inside_compressed_data_is_known_before_decoding(name):
    path = Path(get_testdata_file(name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = dcmread(path)
    size = codestream_size(data.PixelData[: 1 << 16])
    jpeg = data.file_meta.TransferSyntaxUID.startswith("1.2.840.10008.1.2.4")
    assert size == ((data.Rows, data.Columns) if jpeg else None)


def test_a_missing_plugin_is_named_at_opening(tmp_path, monkeypatch):
    import pydicom.pixels

    class Lacking:
        is_available, missing_dependencies = False, ("pylibjpeg - requires numpy, pylibjpeg",)

    monkeypatch.setattr(pydicom.pixels, "get_decoder", lambda syntax: Lacking)
    (tmp_path / "a.dcm").symlink_to(get_testdata_file("JPEG2000.dcm"))
    (defect,) = index_dataset(DicomFormat, str(tmp_path)).defects
    assert "no installed plugin decodes JPEG 2000" in defect.cause
    assert "medseg-gym[data]" in defect.cause and not defect.note


def one(tmp_path: Path, pixels: np.ndarray, **elements) -> Path:
    return write(tmp_path / "one.dcm", slice_dataset(pixels, **elements))


@pytest.fixture
def ramp() -> np.ndarray:
    return np.arange(-1000, 1000, dtype=np.int16).reshape(40, 50)


def test_windows_of_the_file_are_those_of_the_standard(tmp_path, ramp):
    path = one(tmp_path, ramp, WindowCenter=[40, -600], WindowWidth=[400, 1500])
    for number, (center, width) in enumerate([(40, 400), (-600, 1500)]):
        rgb = read_rgb_frame(path, "one.dcm", 0, Window("file", number=number), "CT")
        # PS3.3 C.11.2.1.2.1
        level = ((ramp - (center - 0.5)) / (width - 1) + 0.5) * 255
        assert np.array_equal(rgb[:, :, 0], np.round(np.clip(level, 0, 255)))


def test_a_window_without_width_counts_as_none(tmp_path, ramp):
    path = one(tmp_path, ramp, WindowCenter=[40, 100], WindowWidth=[0, 200])
    assert np.array_equal(read_rgb_frame(path, "o", 0, FILE, "CT"), show(ramp, 0, 199))
    path = one(tmp_path, ramp, WindowCenter=40, WindowWidth=0)
    assert np.array_equal(read_rgb_frame(path, "o", 0, FILE, "CT"), show(ramp, -160, 240))


def test_window_functions(tmp_path, ramp):
    window = {"WindowCenter": 100, "WindowWidth": 200}
    exact = read_rgb_frame(
        one(tmp_path, ramp, VOILUTFunction="LINEAR_EXACT", **window), "o", 0, FILE, "CT"
    )
    assert np.array_equal(exact[:, :, 0], np.round(np.clip(ramp / 200, 0, 1) * 255))
    curve = read_rgb_frame(
        one(tmp_path, ramp, VOILUTFunction="SIGMOID", **window), "o", 0, FILE, "CT"
    )
    expected = 255 / (1 + np.exp(-4 * (ramp.astype(float) - 100) / 200))
    assert np.abs(curve[:, :, 0] - expected).max() <= 0.51


def test_a_lookup_table_stands_in_for_a_window(tmp_path):
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16)
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [256, 0, 8])
    table.add_new("LUTData", "US", [255 - v for v in range(256)])
    path = one(tmp_path, ramp, modality="MR", VOILUTSequence=Items([table]))
    assert np.array_equal(read_rgb_frame(path, "o", 0, FILE, "MRI")[:, :, 2], 255 - ramp)


def test_rescaling_and_presets_work_in_hounsfield_units(tmp_path, ramp):
    stored = ((ramp + 1024) // 2).astype(np.uint16)
    path = one(tmp_path, stored, RescaleSlope=2, RescaleIntercept=-1024)
    rgb = read_rgb_frame(path, "one.dcm", 0, parse_window("bone", "CT"), "CT")
    assert np.array_equal(rgb, show(stored * 2.0 - 1024, -500, 1300))
    usual = read_rgb_frame(path, "one.dcm", 0, FILE, "CT")  # no window in the file
    assert np.array_equal(usual, show(stored * 2.0 - 1024, -160, 240))


def test_of_slope_and_intercept_one_may_be_missing(tmp_path, ramp):
    shown = {"modality": "MR", "WindowCenter": 0, "WindowWidth": 800}
    for elements, values in (
        ({"RescaleIntercept": -300}, ramp - 300.0),
        ({"RescaleSlope": 0.5}, ramp * 0.5),
        ({}, ramp),
    ):
        rgb = read_rgb_frame(one(tmp_path, ramp, **shown, **elements), "o", 0, FILE, "MRI")
        assert np.array_equal(rgb, show(values, -400, 399))


@pytest.mark.parametrize(
    ("elements", "cause"),
    [
        ({"RescaleSlope": "nan"}, "RescaleSlope is nan"),
        ({"RescaleSlope": "inf"}, "RescaleSlope is inf"),
        ({"RescaleIntercept": "-inf"}, "RescaleIntercept is -inf"),
        ({"RescaleSlope": 0}, "RescaleSlope is 0"),
        ({"RescaleIntercept": None}, "RescaleIntercept is empty"),
        ({"RescaleSlope": "1e308"}, "NaN or infinite"),
    ],
)
@pytest.mark.parametrize("window", ["file", "percentiles", "soft"])
def test_numbers_that_show_nothing_are_refused(tmp_path, ramp, elements, cause, window):
    import pydicom.config

    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        path = one(tmp_path, ramp, **{"RescaleIntercept": 0, **elements})
    with pytest.raises(Damaged, match=cause):
        read_rgb_frame(path, "o", 0, parse_window(window, "CT", own=True), "CT")


@pytest.mark.parametrize("number", ["nan", "inf", "-5", "0"])
def test_a_window_of_no_width_is_none(tmp_path, ramp, number):
    import pydicom.config

    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        path = one(tmp_path, ramp, WindowCenter=40, WindowWidth=number)
    assert np.array_equal(read_rgb_frame(path, "o", 0, FILE, "CT"), show(ramp, -160, 240))


@pytest.mark.parametrize("whole", [True, False])
def test_images_of_one_bit_and_odd_size(tmp_path, whole):
    bits = np.random.default_rng(0).integers(0, 2, (5, 7, 9)).astype(np.uint8)
    data = slice_dataset(bits[0], modality="MR", NumberOfFrames=5)
    data.BitsAllocated = data.BitsStored = 1
    data.HighBit = data.PixelRepresentation = 0
    data.PixelData = pack_bits(bits)
    data["PixelData"].VR = "OB"
    write(tmp_path / "one.dcm", data)
    for frame in range(5):
        rgb = read_rgb_frame(tmp_path / "one.dcm", "o", frame, Window("numbers", 0, 1), "", whole)
        assert np.array_equal(rgb[:, :, 0], bits[frame] * 255)


@pytest.mark.parametrize("spacing", [None, [0, 0], [-1, 1], ["nan", "nan"], [1, "inf"]])
def test_spacing_is_a_length_or_missing(tmp_path, spacing):
    import pydicom.config

    pixels, masks = both_lungs()
    sources = write_series(tmp_path, pixels)
    seg = segmentation(sources, masks, ["R", "L"])
    _forget_planes(seg)
    write(tmp_path / "seg.dcm", seg)
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        for path in tmp_path.glob("IM*"):
            data = dcmread(path)
            del data.PixelSpacing
            if spacing is not None:
                data.PixelSpacing = spacing
            data.save_as(path)
    indexed = index_dataset(DicomFormat, str(tmp_path))
    if spacing is None:
        assert not indexed.bad and {record.spacing for record in indexed.records} == {None}
    else:
        assert {d.path[:2] for d in indexed.bad} >= {"IM"} and not indexed.records
        assert "PixelSpacing" in str(indexed.bad[0])


def _forget_planes(seg: Dataset) -> None:
    for group in seg.PerFrameFunctionalGroupsSequence:
        del group.PlanePositionSequence


def test_monochrome1_is_turned_over(tmp_path, ramp):
    window = {"WindowCenter": 0, "WindowWidth": 800}
    plain = read_rgb_frame(one(tmp_path, ramp, **window), "o", 0, FILE, "X-ray")
    path = one(tmp_path, ramp, PhotometricInterpretation="MONOCHROME1", **window)
    assert np.array_equal(read_rgb_frame(path, "o", 0, FILE, "X-ray"), 255 - plain)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_lossless_compression_changes_no_case(tmp_path, syntax):
    pixels, masks = both_lungs()
    sources = write_series(tmp_path / "plain", pixels)
    write(tmp_path / "plain/seg", segmentation(sources, masks, ["R", "L"]))
    for file in sorted((tmp_path / "plain").iterdir()):
        data = dcmread(file)
        if data.Modality == "CT":
            data.compress(syntax, generate_instance_uid=False)
        write(tmp_path / "packed" / file.name, data)
    plain, packed = healthy(tmp_path / "plain"), healthy(tmp_path / "packed")
    assert len(plain.records) == len(packed.records) == 12
    for a, b in zip(plain.records, packed.records, strict=True):
        one, two = plain.case(a), packed.case(b)
        assert a.key == b.key
        assert np.array_equal(one.image, two.image) and np.array_equal(one.mask, two.mask)


# --- series and geometry ----------------------------------------------------------------------

TURNED = {
    "axial": AXIAL,
    "prone": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "coronal": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    "sagittal": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    "columns-first": (0.0, 1.0, 0.0, 1.0, 0.0, 0.0),
    "from-above": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
}


@pytest.mark.parametrize("turned", TURNED)
def test_a_series_gives_the_cases_that_the_same_nifti_gives(tmp_path, turned):
    """nibabel builds the affine from positions as its DICOM documentation says."""
    import nibabel

    pixels, masks = both_lungs()
    pixels, masks = pixels[:, :60], masks[:, :60]  # not square
    geometry = Geometry(orientation=TURNED[turned])
    sources = write_series(tmp_path / "dicom", pixels, geometry)
    write(tmp_path / "dicom/truth", segmentation(sources, masks, ["R", "L"]))
    affine = np.eye(4)
    affine[:3, 0] = np.array(geometry.orientation[:3]) * geometry.spacing[1]
    affine[:3, 1] = np.array(geometry.orientation[3:]) * geometry.spacing[0]
    affine[:3, 2] = np.array(geometry.position(1)) - np.array(geometry.position(0))
    affine[:3, 3] = geometry.position(0)
    affine = np.diag([-1, -1, 1, 1]) @ affine
    (tmp_path / "nifti").mkdir()
    labels = (masks[..., 0] + 2 * masks[..., 1]).astype(np.uint8)
    for name, volume in (("a.nii", pixels), ("a_seg.nii", labels)):
        stored = np.ascontiguousarray(volume.transpose(2, 1, 0))
        nibabel.save(nibabel.Nifti1Image(stored, affine), tmp_path / "nifti" / name)
    axis = turned if turned in ("coronal", "sagittal") else "axial"
    series = healthy(tmp_path / "dicom", "window=wide")
    volume = index_dataset(
        NiftiFormat, f"{tmp_path / 'nifti'}?window=wide&axis={axis}&labels=1:R,2:L"
    )
    by_place = {(r.place["slice"], r.target): r for r in volume.records}
    assert len(series.records) == len(by_place) == 12
    for record in series.records:
        at = int(record.key.split("/")[1][1:])
        case, twin = series.case(record), volume.case(by_place[at, record.target])
        assert np.array_equal(case.image, twin.image) and np.array_equal(case.mask, twin.mask)
        assert case.spacing == pytest.approx(twin.spacing)
        assert record.size == case.mask.shape and record.area == case.mask.sum()
        assert case.modality == "CT" and case.group.startswith("patient-")


def test_mixed_series_in_one_folder_are_told_apart(tmp_path):
    pixels, masks = both_lungs()
    for series in (1, 2):
        sources = write_series(tmp_path / str(series), pixels + series, series=series)
        seg = segmentation(sources, masks[..., :1], ["R"], number=50 + series)
        write(tmp_path / str(series) / "seg", seg)
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for file in (tmp_path / "1").iterdir():
        file.rename(mixed / f"a{file.name}")
    for file in (tmp_path / "2").iterdir():
        file.rename(mixed / f"b{file.name}")
    data = healthy(mixed, "window=wide&keep_identifiers=1")
    assert {r.group for r in data.records} == {"patient 1", "patient 2"}
    for record in data.records:
        assert record.files[0][0] == record.files[1][0]
        assert len([r for r in data.records if r.group == record.group]) == 6
    nameless = healthy(mixed, "window=wide")
    labels = [r.group for r in nameless.records]
    assert len(set(labels)) == 2 and not any("patient 1" in label for label in labels)
    assert [r.split for r in nameless.records] == [r.split for r in data.records]


def test_an_enhanced_multiframe_file_is_a_series(tmp_path):
    pixels, masks = both_lungs()
    data = slice_dataset(pixels, WindowCenter=40, WindowWidth=400)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    data.NumberOfFrames, (data.Rows, data.Columns) = len(pixels), pixels.shape[1:]
    for keyword in "ImagePositionPatient ImageOrientationPatient PixelSpacing".split():
        delattr(data, keyword)
    for keyword in "WindowCenter WindowWidth RescaleSlope RescaleIntercept".split():
        delattr(data, keyword)
    geometry = Geometry()
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(geometry.spacing), geometry.gap
    orientation.ImageOrientationPatient = list(AXIAL)
    shared.PixelMeasuresSequence = Items([measures])
    shared.PlaneOrientationSequence = Items([orientation])
    data.SharedFunctionalGroupsSequence = Items([shared])
    order = [3, 0, 5, 1, 4, 2]  # frames need not be stored in order
    frames = []
    for index in order:
        position, values, voi, frame = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = geometry.position(index)
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, index, "HU"
        voi.WindowCenter, voi.WindowWidth = 40 + index, 400
        frame.PlanePositionSequence = Items([position])
        frame.PixelValueTransformationSequence = Items([values])
        frame.FrameVOILUTSequence = Items([voi])
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence = Items(frames)
    data.PixelData = np.ascontiguousarray(pixels[order]).tobytes()
    write(tmp_path / "enhanced.dcm", data)
    singles = write_series(tmp_path / "elsewhere", pixels)
    seg = segmentation(singles, masks[..., :1], ["R"])
    for file in (tmp_path / "elsewhere").iterdir():
        file.unlink()
    _forget_sources(seg)
    write(tmp_path / "seg.dcm", seg)
    indexed = healthy(tmp_path)
    assert [r.place["frame"] for r in indexed.records] == [order.index(i) for i in range(6)]
    for index, record in enumerate(indexed.records):
        case = indexed.case(record)
        assert np.array_equal(case.mask, masks[index, :, :, 0] > 0)
        half = 199.5  # centre and intercept move together
        assert np.array_equal(case.image, show(pixels[index], 39.5 - half, 39.5 + half))


def _forget_sources(seg: Dataset) -> None:
    """A SEG that says where its frames lie but not what they were drawn on."""
    for group in seg.PerFrameFunctionalGroupsSequence:
        if "DerivationImageSequence" in group:
            del group.DerivationImageSequence
    for keyword in ("ReferencedSeriesSequence", "SourceImageSequence"):
        if keyword in seg:
            delattr(seg, keyword)


# --- SEG --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_segments_are_those_that_highdicom_reads(tmp_path, kind):
    pixels, masks = both_lungs()
    sources = write_series(tmp_path, pixels)
    if kind == "LABELMAP":
        seg = segmentation(sources, masks[..., 0] + 2 * masks[..., 1], ["R", "L"], kind)
    elif kind == "FRACTIONAL":
        soft = masks.astype(np.float64)
        soft[:, 10:30] *= 0.4  # below half: not the target
        seg = segmentation(sources, soft, ["R", "L"], kind, max_fractional_value=200)
        masks[:, 10:30] = 0
    else:
        seg = segmentation(sources, masks, ["R", "L"], kind)
    write(tmp_path / "seg.dcm", seg)
    read = highdicom.seg.segread(tmp_path / "seg.dcm")
    theirs = read.get_pixels_by_source_instance(
        [source.SOPInstanceUID for source in sources],
        combine_segments=False,
        assert_missing_frames_are_empty=True,
        rescale_fractional=True,
    )
    data = healthy(tmp_path, "min_area=0")
    assert data.targets == ("L", "R")
    seen = 0
    for record in data.records:
        at, segment = record.place["frame"], record.place["number"] - 1
        at = next(i for i, s in enumerate(sources) if _same(tmp_path / record.files[0], s))
        mask = data.case(record).mask
        assert np.array_equal(mask, masks[at, :, :, segment] > 0)
        assert np.array_equal(mask, theirs[at, :, :, segment] >= 0.5)
        seen += int(mask.sum())
    assert seen == int(masks.sum())


def _same(path: Path, source: Dataset) -> bool:
    return dcmread(path, stop_before_pixels=True).SOPInstanceUID == source.SOPInstanceUID


def test_frames_find_their_slices_by_position_alone(tmp_path):
    pixels, masks = both_lungs()
    sources = write_series(tmp_path, pixels)
    seg = segmentation(sources, masks, ["R", "L"])
    write(tmp_path / "seg.dcm", seg)
    by_reference = healthy(tmp_path)
    _forget_sources(seg)
    write(tmp_path / "seg.dcm", seg)
    by_position = healthy(tmp_path)
    assert [r for r in by_position.records] == [r for r in by_reference.records]


def test_a_real_seg_without_its_images_is_read_and_missed(tmp_path):
    path = Path(get_testdata_file("liver_1frame.dcm"))
    (tmp_path / "liver.dcm").symlink_to(path)
    data = opened(tmp_path)
    assert [str(d) for d in data.bad] == [
        "liver.dcm: refers to series 1.2.392.200103.20080913.113635.1.2009.6.22.21.43.10.23430.1, "
        "which is not among the files"
    ]
    scan = scan_segmentation(path, "liver.dcm")
    assert scan["segments"] == [[1, "Liver"]]
    mask = segment_values(path, "liver.dcm", 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = pixel_array(path)
    assert np.array_equal(mask, expected) and scan["frames"][0][1] == [[1, int(expected.sum())]]


# --- RTSTRUCT -----------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**16),
    turned=st.sampled_from(sorted(TURNED)),
)
def test_outlines_with_holes_give_the_masks_back(seed, turned):
    rng = np.random.default_rng(seed)
    masks = _blobs(rng)
    pixels = rng.integers(-100, 100, masks.shape).astype(np.int16)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sources = write_series(root, pixels, Geometry(orientation=TURNED[turned]))
        write(root / "rt.dcm", structure_set(sources, {"blob": masks}))
        data = index_dataset(DicomFormat, f"{root}?min_area=0")
        assert not data.bad, [str(d) for d in data.defects]
        by_uid = {source.SOPInstanceUID: i for i, source in enumerate(sources)}
        assert len(data.records) == int(masks.any((1, 2)).sum())
        for record in data.records:
            instance = dcmread(root / record.files[0], stop_before_pixels=True).SOPInstanceUID
            truth = masks[by_uid[instance]]
            view = sources[0]
            case = data.case(record)
            assert record.area == truth.sum() == case.mask.sum()
            assert any(np.array_equal(case.mask, turn) for turn in _turns(truth)), view


@given(seed=st.integers(0, 2**16), corners=st.integers(3, 12))
def test_filling_agrees_with_skimage(seed, corners):
    points = np.random.default_rng(seed).uniform(-15, 45, (corners, 2))  # partly outside
    expected = np.zeros((30, 28), bool)
    expected[polygon(points[:, 0], points[:, 1], expected.shape)] = True
    assert np.array_equal(fill(points, 30, 28), expected)


def _blobs(rng: np.random.Generator) -> np.ndarray:
    """(3, 20, 24) bool: rectangles, some with holes and islands in them."""
    masks = np.zeros((3, 20, 24), bool)
    for mask in masks:
        for _ in range(rng.integers(1, 4)):
            top, left = rng.integers(0, 14), rng.integers(0, 16)
            high, wide = rng.integers(3, 9), rng.integers(3, 9)
            mask[top : top + high, left : left + wide] ^= True
    return masks


def _turns(mask: np.ndarray) -> list[np.ndarray]:
    return [turn[::a, ::b] for turn in (mask, mask.T) for a in (1, -1) for b in (1, -1)]


def test_regions_become_targets_in_order_of_slices(tmp_path):
    pixels, masks = both_lungs()
    sources = write_series(tmp_path, pixels)
    named = {"right lung": masks[..., 0] > 0, "left lung": masks[..., 1] > 0}
    write(tmp_path / "rt.dcm", structure_set(sources, named))
    write(tmp_path / "seg.dcm", segmentation(sources, masks, list(named)))
    data = healthy(tmp_path)
    assert data.targets == ("left lung", "right lung")
    drawn = {r.key.partition("/")[2]: r for r in data.records if r.files[1] == "rt.dcm"}
    for record in data.records:
        if record.files[1] == "seg.dcm":
            twin = data.case(drawn.pop(record.key.partition("/")[2]))
            assert np.array_equal(data.case(record).mask, twin.mask)
    assert not drawn


def test_contours_without_a_reference_are_placed_by_position(tmp_path):
    pixels, masks = both_lungs()
    sources = write_series(tmp_path, pixels)
    rt = structure_set(sources, {"right lung": masks[..., 0] > 0})
    write(tmp_path / "rt.dcm", rt)
    before = healthy(tmp_path).records
    for item in rt.ROIContourSequence[0].ContourSequence:
        del item.ContourImageSequence
    write(tmp_path / "rt.dcm", rt)
    assert healthy(tmp_path).records == before


# --- options and what is left out -----------------------------------------------------------------


def test_options(tmp_path):
    pixels, masks = both_lungs()
    sources = write_series(tmp_path, pixels, WindowCenter=[40, -600], WindowWidth=[400, 1500])
    write(tmp_path / "seg.dcm", segmentation(sources, masks, ["R", "L"]))
    assert len(healthy(tmp_path, "slices=top:2").records) == 4
    assert len(healthy(tmp_path, "slices=every:3").records) == 4
    first, second = (healthy(tmp_path, f"window=file:{n}") for n in (1, 2))
    images = [d.case(d.records[0]).image for d in (first, second)]
    assert not np.array_equal(*images)
    assert np.array_equal(images[0], (d := healthy(tmp_path)).case(d.records[0]).image)
    for options, message in {"window=file:0": "file:2", "slices=x": "top:NUMBER"}.items():
        with pytest.raises(CaseError, match=message):
            index_dataset(DicomFormat, f"{tmp_path}?{options}")


def test_opening_again_reads_no_file(tmp_path, monkeypatch):
    import time

    from medseg_gym.cases.dicom import dataset_format

    pixels, masks = both_lungs()
    sources = write_series(tmp_path, pixels)
    write(tmp_path / "seg.dcm", segmentation(sources, masks, ["R", "L"]))
    write(tmp_path / "rt.dcm", structure_set(sources, {"lung": masks[..., 0] > 0}))
    time.sleep(0.15)  # younger files are read again: their time stamps may be too coarse
    first = index_dataset(DicomFormat, str(tmp_path))
    for reader in ("read_facts", "scan_segmentation", "read_structures"):
        monkeypatch.setattr(dataset_format, reader, None)
    assert index_dataset(DicomFormat, f"{tmp_path}?window=lung").records == first.records


def test_a_nifti_beside_the_series_does_not_disturb(tmp_path):
    pixels, masks = both_lungs()
    sources = write_series(tmp_path, pixels)
    write(tmp_path / "seg.dcm", segmentation(sources, masks, ["R", "L"]))
    save(tmp_path / "a.nii.gz", lungs(piece()[1]))
    (tmp_path / "README.txt").write_text("scans")
    assert not healthy(tmp_path).defects


def test_uids_of_the_tests_are_valid():
    from pydicom.uid import UID

    assert UID(uid(1, 2)).is_valid
