"""Labels as programs really store them: scaled, in floating point, in channels; NaN in images."""

from __future__ import annotations

import gzip
import struct
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opening import open_dataset
from volume_writing import save

from medseg_gym.cases import Case, CaseError, load_cases
from medseg_gym.cases.files import Damaged, FileData, index_dataset
from medseg_gym.cases.nifti import NiftiFormat
from medseg_gym.cases.volumes import Volume
from medseg_gym.cases.volumes.whole_numbers import whole_numbers

AFFINE = np.diag([-1.0, -1.0, 3.0, 1.0])


def organs() -> np.ndarray:
    """Two organs on three slices, (3, 24, 32); the first slice shows none."""
    labels = np.zeros((3, 24, 32), np.uint8)
    labels[1, 2:12, 3:15], labels[1, 14:22, 4:10], labels[2, 5:12, 20:30] = 1, 2, 1
    return labels


def ct_volume(dtype: str = "i2") -> np.ndarray:
    return np.random.default_rng(0).integers(-100, 300, (3, 24, 32)).astype(dtype)


def write(path: Path, view: np.ndarray, slope: float = 0.0, inter: float = 0.0) -> None:
    """(3, H, W) or (3, H, W, C) as NIfTI; a slope is put into the header as it stands."""
    order = (2, 1, 0, *range(3, view.ndim))
    dtype = view.dtype if view.dtype.itemsize < 8 or view.dtype.kind == "f" else np.int64
    image = nibabel.Nifti1Image(view.transpose(order).astype(dtype), AFFINE, dtype=dtype)
    content = bytearray(image.to_bytes())
    if slope:
        content[112:120] = struct.pack("<ff", slope, inter)
    packed = path.name.endswith(".gz")
    path.write_bytes(gzip.compress(bytes(content), 1) if packed else bytes(content))


def pair(root: Path, labels: np.ndarray, suffix: str = ".nii.gz", **scaling: float) -> Path:
    write(root / "case_image.nii.gz", ct_volume())
    write(root / f"case_label{suffix}", labels, **scaling)
    return root


opened = partial(open_dataset, NiftiFormat)


def masks(data: FileData) -> dict[tuple[str, int], np.ndarray]:
    assert not data.bad, [str(defect) for defect in data.defects]
    read = {}
    for record in data.records:
        case: Case = data.case(record)
        assert int(case.mask.sum()) == record.area
        read[record.target, record.place["slice"]] = case.mask
    return read


def assert_organs(data: FileData, one: str = "label 1", two: str = "label 2") -> None:
    read, labels = masks(data), organs()
    assert set(read) == {(one, 1), (two, 1), (one, 2)}
    for (name, index), mask in read.items():
        assert np.array_equal(mask, labels[index] == (1 if name == one else 2))


# --- storage of label values ------------------------------------------------------------------

ROUNDED = {
    "int16 with a slope": (organs().astype("i2") * 16000, {"slope": 1 / 16000.3}),
    "int16 with slope and intercept": (
        organs().astype("i2") * 1000 - 500,
        {"slope": 0.001, "inter": 0.50003},
    ),
    "float32": (np.array([0, 1.0000001, 1.99999], "f4")[organs()], {}),
    "float64": (np.array([1e-12, 0.9995, 2.0009])[organs()], {}),
    "just below zero": (np.array([-1e-7, 1, 2], "f4")[organs()], {}),
}
EXACT = {
    "uint8 with slope 1/2": (organs() * np.uint8(2), {"slope": 0.5}),
    "int32": (organs().astype("i4"), {}),
    "int64": (organs().astype("i8"), {}),
    "uint32": (organs().astype("u4"), {}),
    "float64": (organs().astype("f8"), {}),
    "big-endian int16": (organs().astype(">i2"), {}),
    "big-endian uint16": (organs().astype(">u2"), {}),
    "big-endian float32": (organs().astype(">f4"), {}),
}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("name", ROUNDED)
def test_nearly_whole_labels_are_rounded_and_noted(tmp_path, name, suffix):
    labels, scaling = ROUNDED[name]
    data = opened(pair(tmp_path, labels, suffix, **scaling))
    assert_organs(data)
    (note,) = [d for d in data.defects if "rounded to whole numbers" in d.cause]
    assert note.note and note.path == f"case_label{suffix}" and note.place.startswith("slice ")
    assert opened(tmp_path).defects == data.defects, "from the index"


@pytest.mark.parametrize("name", EXACT)
def test_whole_labels_are_taken_without_a_word(tmp_path, name):
    labels, scaling = EXACT[name]
    data = opened(pair(tmp_path, labels, **scaling))
    assert_organs(data)
    assert not any("rounded" in str(defect) for defect in data.defects)


def test_a_mask_of_255_steps_is_a_mask(tmp_path):
    data = opened(pair(tmp_path, (organs() > 0) * np.uint8(255), slope=1 / 255))
    assert {target for target, _ in masks(data)} == {"label 1"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.99, "whole numbers, found 0.99"),
        (1.002, "whole numbers"),
        (254 / 255, "whole numbers"),
        (np.nan, "labels are NaN or infinite; write 0"),
        (np.inf, "NaN or infinite"),
        (-np.inf, "NaN or infinite"),
        (-1.0, r"label -1 is outside of 0\.\.65535"),
        (-0.9999, "label -1 is outside"),
        (70_000.0, "label 70000 is outside"),
        (1e30, "is outside of 0"),
    ],
)
def test_what_is_no_label_is_refused_by_name(tmp_path, value, words):
    labels = organs().astype("f8")
    labels[1][labels[1] == 2] = value
    data = opened(pair(tmp_path, labels))
    (defect,) = data.bad
    assert defect.path == "case_label.nii.gz" and defect.place == "slice 1"
    with pytest.raises(CaseError, match=words):
        data.require_usable()


@given(
    label=st.integers(0, 60_000),
    off=st.floats(-2e-3, 2e-3).filter(lambda x: abs(abs(x) - 1e-3) > 1e-6),
)
def test_the_tolerance_is_a_thousandth(label, off):
    plane = np.array([[label + off, label]])
    if abs(off) < 1e-3:
        assert (whole_numbers(plane, "a", "") == label).all()
    else:
        with pytest.raises(Damaged, match="whole numbers"):
            whole_numbers(plane, "a", "")


def test_bool_arrays_are_labels():
    plane = np.array([[True, False]])
    assert whole_numbers(plane, "a", "").tolist() == [[1, 0]]


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_other_formats_round_alike(tmp_path, suffix):
    import SimpleITK

    for name, view in (("image", ct_volume()), ("label", organs() * np.float32(0.99999))):
        image = SimpleITK.GetImageFromArray(view)
        SimpleITK.WriteImage(image, str(tmp_path / f"case_{name}{suffix}"))
    data = opened(tmp_path)
    assert_organs(data)
    assert any("rounded" in d.cause for d in data.defects)


# --- channels -----------------------------------------------------------------------------------


def one_hot(first: int = 0) -> np.ndarray:
    return np.stack([organs() == value for value in range(first, 3)], -1).astype(np.uint8)


def overlapping() -> np.ndarray:
    """Two targets that share voxels and leave others free, (3, 24, 32, 2)."""
    channels = np.zeros((3, 24, 32, 2), np.uint8)
    channels[1, 2:12, 3:20, 0] = channels[1, 8:18, 10:28, 1] = 1
    return channels


STORED = {
    "four axes": lambda a: a,
    "a vector a voxel": lambda a: a[:, :, :, None, :],
    "float": lambda a: a.astype("f4"),
    "nearly one": lambda a: a * np.float32(0.9999),
    "255": lambda a: a * np.uint8(255),
    "scaled by its number": lambda a: a * np.arange(1, a.shape[-1] + 1, dtype="i2"),
}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("how", STORED)
def test_channel_0_of_one_hot_labels_is_the_background(tmp_path, how, suffix):
    pair(tmp_path, STORED[how](one_hot()), suffix)
    assert_organs(opened(tmp_path))
    assert_organs(opened(tmp_path, "labels=1:liver,2:tumour"), "liver", "tumour")
    assert_organs(opened(tmp_path, "labels=0:background,1:liver,2:tumour"), "liver", "tumour")


@pytest.mark.parametrize("how", STORED)
def test_channels_without_background_are_a_target_each(tmp_path, how):
    pair(tmp_path, STORED[how](one_hot(1)))
    assert_organs(opened(tmp_path))
    assert_organs(opened(tmp_path, "labels=1:liver,2:tumour"), "liver", "tumour")


def test_a_vector_has_the_intent_of_one(tmp_path):
    pair(tmp_path, one_hot()[:, :, :, None, :])
    image = nibabel.load(tmp_path / "case_label.nii.gz")
    image.header.set_intent("vector")
    nibabel.save(image, tmp_path / "case_label.nii")
    (tmp_path / "case_label.nii.gz").unlink()
    assert_organs(opened(tmp_path))


def test_a_single_channel_is_a_label_map(tmp_path):
    assert_organs(opened(pair(tmp_path, organs()[..., None])))
    assert_organs(opened(pair(tmp_path, organs()[..., None, None])))


def test_channels_may_overlap(tmp_path):
    labels = overlapping()
    read = masks(opened(pair(tmp_path, labels), "labels=1:whole,2:core"))
    assert np.array_equal(read["whole", 1], labels[1, :, :, 0] > 0)
    assert np.array_equal(read["core", 1], labels[1, :, :, 1] > 0)
    background = (labels.sum(-1, keepdims=True) == 0).astype(np.uint8)
    again = masks(opened(pair(tmp_path, np.concatenate([background, labels], -1))))
    assert np.array_equal(again["label 1", 1], read["whole", 1])
    assert np.array_equal(again["label 2", 1], read["core", 1])


def test_channels_are_counted_from_0_where_that_is_named(tmp_path):
    pair(tmp_path, overlapping())
    (tmp_path / "names.json").write_text('["whole", "core"]')
    expected = masks(opened(tmp_path, "labels=1:whole,2:core"))
    for options in ("labels=0:whole,1:core", "labels=names.json"):
        read = masks(opened(tmp_path, options))
        assert set(read) == {("whole", 1), ("core", 1)}
        assert all(np.array_equal(read[at], expected[at]) for at in read)
    with pytest.raises(CaseError, match="names nothing but background"):
        opened(tmp_path, "labels=0:whole")
    (defect,) = opened(tmp_path, "labels=0:background,1:whole").bad
    assert "label 2 (channel 1 of 0 to 1)" in defect.cause


def test_channels_can_be_joined_where_they_are_disjoint(tmp_path):
    pair(tmp_path, one_hot())
    (tmp_path / "names.json").write_text('{"both": [1, 2], "tumour": 2}')
    read = masks(opened(tmp_path, "labels=names.json"))
    assert np.array_equal(read["both", 1], organs()[1] > 0)
    assert np.array_equal(read["tumour", 1], organs()[1] == 2)
    write(tmp_path / "case_label.nii.gz", overlapping())
    (defect,) = opened(tmp_path, "labels=names.json").bad
    assert "joins channels to 'both' that overlap" in defect.cause


def test_a_channel_without_a_name_is_a_defect(tmp_path):
    (defect,) = opened(pair(tmp_path, one_hot()), "labels=1:liver").bad
    assert "label 2 (channel 2 of 0 to 2) occurs, but labels= does not name it" in defect.cause
    data = opened(tmp_path, "labels=1:liver,2:ignore")
    assert {target for target, _ in masks(data)} == {"liver"}
    assert sum(n for reason, n in data.left_out.items() if "called ignore" in reason) == 1


def test_label_maps_in_channels_are_refused(tmp_path):
    (defect,) = opened(pair(tmp_path, np.stack([organs()] * 3, -1))).bad
    assert "3 values per voxel, and channel 0 holds the labels 1, 2" in defect.cause
    assert "a file each" in defect.cause


def test_labels_of_the_steps_of_a_time_series_are_refused(tmp_path):
    write(tmp_path / "case_image.nii.gz", np.stack([ct_volume()] * 2, -1))
    write(tmp_path / "case_label.nii.gz", overlapping())
    (defect,) = opened(tmp_path, "channel=1").bad
    assert "2 values per voxel, and so has its image: a time step each" in defect.cause
    named = opened(tmp_path, "channel=1&labels=1:whole,2:core")
    assert {target for target, _ in masks(named)} == {"whole", "core"}
    write(tmp_path / "case_label.nii.gz", one_hot(1)[..., :1])
    assert masks(opened(tmp_path, "channel=1")), "a label map for all steps"


def test_soft_channels_are_refused(tmp_path):
    (defect,) = opened(pair(tmp_path, one_hot() * np.float32(0.7))).bad
    assert "threshold a probability map" in defect.cause


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd"])
@pytest.mark.parametrize("vector", [True, False])
def test_other_formats_have_channels_too(tmp_path, suffix, vector):
    import SimpleITK

    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(ct_volume()), str(tmp_path / f"case_image{suffix}")
    )
    if vector:
        image = SimpleITK.GetImageFromArray(one_hot(), isVector=True)
    else:
        image = SimpleITK.GetImageFromArray(one_hot().transpose(3, 0, 1, 2), isVector=False)
        assert image.GetDimension() == 4
    SimpleITK.WriteImage(image, str(tmp_path / f"case_label{suffix}"))
    assert_organs(opened(tmp_path, "labels=1:liver,2:tumour"), "liver", "tumour")


def test_labels_that_a_segmentation_does_not_name_are_counted(tmp_path):
    import SimpleITK

    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(ct_volume()), str(tmp_path / "a.nrrd"))
    image = SimpleITK.GetImageFromArray(organs())
    for key, value in (("Name", "liver"), ("LabelValue", "1"), ("Layer", "0")):
        image.SetMetaData(f"Segment0_{key}", value)
    SimpleITK.WriteImage(image, str(tmp_path / "a.seg.nrrd"))
    data = opened(tmp_path)
    assert {target for target, _ in masks(data)} == {"liver"}
    assert sum(n for reason, n in data.left_out.items() if "gives no name" in reason) == 1
    assert {t for t, _ in masks(opened(tmp_path, "labels=1:L,2:T"))} == {"L", "T"}


# --- NaN in images ------------------------------------------------------------------------------


def holed(value: float = np.nan, dtype: str = "f4") -> np.ndarray:
    """A volume whose first six columns lie outside of the field of view."""
    volume = ct_volume(dtype)
    volume[:, :, :6] = value
    return volume


def show(root: Path, options: str) -> np.ndarray:
    data = opened(root, options)
    assert not data.bad, [str(d) for d in data.bad]
    return data.case(data.records[0]).image[:, :, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_what_is_not_finite_needs_a_number(tmp_path, value, suffix):
    write(tmp_path / f"case_image{suffix}", holed(value))
    write(tmp_path / "case_label.nii.gz", organs())
    data = opened(tmp_path, "window=-100,300")
    assert len(data.bad) == 3 and not data.records
    with pytest.raises(CaseError, match=r"144 of 768 pixels are NaN or infinite; nan=NUMBER"):
        data.require_usable()
    grey = np.round(np.clip((ct_volume()[1] + 100.0) / 400, 0, 1) * 255)
    for number, level in (("-100", 0), ("-5000", 0), ("100", 128), ("300", 255)):
        shown = show(tmp_path, f"window=-100,300&nan={number}")
        assert (shown[:, :6] == level).all()
        assert np.array_equal(shown[:, 6:], grey[:, 6:])


def test_percentiles_never_see_nan(tmp_path):
    write(tmp_path / "case_image.nii.gz", holed())
    write(tmp_path / "case_label.nii.gz", organs())
    values = ct_volume()[:, :, 6:]
    low, high = np.percentile(values[values != 0], [0.5, 99.5])
    grey = np.round(np.clip((ct_volume()[1] - low) / (high - low), 0, 1) * 255)
    for number in ("-100", "-1e6"):
        shown = show(tmp_path, f"nan={number}")
        assert not shown[:, :6].any() and np.array_equal(shown[:, 6:], grey[:, 6:])


def test_nan_in_one_slice_or_everywhere(tmp_path):
    some = ct_volume("f8")
    some[1, 3, 3] = np.nan
    write(tmp_path / "case_image.nii.gz", some)
    write(tmp_path / "case_label.nii.gz", organs())
    assert {d.place for d in opened(tmp_path).bad} == {"slice 1"}
    assert len(masks(opened(tmp_path, "nan=0"))) == 3
    write(tmp_path / "case_image.nii.gz", np.full_like(some, np.nan))
    for options in ("", "nan=0", "nan=0&window=-100,300"):
        causes = {d.cause for d in opened(tmp_path, options).bad}
        assert causes == {"all 768 pixels are NaN or infinite: there is nothing to see"}


def test_nan_in_a_channel_of_an_image(tmp_path):
    write(tmp_path / "case_image.nii.gz", np.stack([ct_volume("f4"), holed()], -1))
    write(tmp_path / "case_label.nii.gz", organs())
    assert not opened(tmp_path, "channel=0").bad and opened(tmp_path, "channel=1").bad
    assert len(masks(opened(tmp_path, "channel=1&nan=-100"))) == 3


@pytest.mark.parametrize("number", ["nan", "inf", "black", ""])
def test_nan_must_be_a_number(tmp_path, number):
    with pytest.raises(CaseError, match=r"option nan=.*a (finite )?number is wanted"):
        index_dataset(NiftiFormat, f"{tmp_path}?nan={number}")


def test_scaled_integers_take_the_number_as_well(tmp_path):
    """There is no NaN among integers: the option changes nothing."""
    pair(tmp_path, organs())
    without, given = (masks(opened(tmp_path, o)) for o in ("", "nan=5"))
    assert set(without) == set(given)


def test_a_file_of_one_organ_has_one_channel(tmp_path):
    for folder in ("s1", "s1/segmentations"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "s1/ct.nii.gz", ct_volume())
    write(tmp_path / "s1/segmentations/liver.nii.gz", one_hot())
    (defect,) = opened(tmp_path).bad
    assert "one organ must have one" in defect.cause
    write(tmp_path / "s1/segmentations/liver.nii.gz", (organs() == 1) * np.float32(0.9999))
    assert {target for target, _ in masks(opened(tmp_path))} == {"liver"}


def test_a_zero_fifth_axis_is_a_damaged_header(tmp_path):
    save(tmp_path / "a.nii", ct_volume())
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[40:56] = struct.pack("<8h", 5, 32, 24, 3, 1, 0, 1, 1)
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(CaseError):
        Volume(tmp_path / "a.nii")


def test_loading_refuses_as_the_check_does(tmp_path):
    pair(tmp_path, organs() * np.float32(0.99))
    for split in ("train", "val", "test"):
        with pytest.raises(CaseError, match="whole numbers"):
            load_cases(f"nifti:{tmp_path}", split)
