"""Scans read whole, and masks written back onto their grid, read again by other libraries."""

from __future__ import annotations

import warnings

import highdicom
import nibabel
import numpy as np
import pytest
import SimpleITK
from pydicom import dcmread

from medseg_gym.cases import CaseError, VolumeCase
from medseg_gym.cases.dicom.scan import read_series
from medseg_gym.cases.volumes.scan import read_volume_file
from medseg_gym.cases.writers.volume_masks import (
    IDENTIFIERS,
    write_nifti_mask,
    write_segmentation,
    write_slices,
)

from .dicom_writing import (
    AXIAL,
    Geometry,
    segmentation,
    slice_dataset,
    structure_set,
    write,
    write_series,
)
from .volume_writing import piece, save

TILTED = tuple(
    np.concatenate(np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0][:2]).tolist()
)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
GEOMETRIES = {
    "axial": Geometry(orientation=AXIAL),
    "feet first": Geometry(orientation=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)),
    "coronal": Geometry(orientation=CORONAL),
    "oblique": Geometry(orientation=TILTED),
}


@pytest.fixture(params=list(GEOMETRIES))
def series(request, tmp_path):
    """A folder of DICOM, its volume and its mask as (slices, rows, columns) of the files."""
    image, labels = piece()
    folder = tmp_path / "series"
    sources = write_series(folder, image, GEOMETRIES[request.param])
    return folder, sources, labels == 5


def in_space(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Positions of true voxels in mm, sorted; voxel (i, j, k) is `mask[i, j, k]`."""
    places = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
    return places[np.lexsort(places.round(3).T)]


def of_files(sources, mask) -> np.ndarray:
    """Positions of the true pixels by the files' own headers, right, front, up."""
    places = []
    for data, plane in zip(sources, mask, strict=True):
        along, down = np.array(data.ImageOrientationPatient, float).reshape(2, 3)
        spacing = [float(s) for s in data.PixelSpacing]
        for row, column in np.argwhere(plane):
            place = np.array(data.ImagePositionPatient, float)
            places.append(place + row * spacing[0] * down + column * spacing[1] * along)
    result = np.array(places) * [-1, -1, 1]
    return result[np.lexsort(result.round(3).T)]


def test_a_series_and_its_truth_lie_where_the_files_say(series, tmp_path):
    folder, sources, mask = series
    truth = write(tmp_path / "seg.dcm", segmentation(sources, mask.astype(np.uint8), ["lung"]))
    case, left_out = read_series(folder, "right lung", truth, label="lung")
    assert not left_out and case.truth_known and case.modality == "CT"
    assert case.geometry is not None and case.mask.sum() == mask.sum()
    stored = case.geometry.stored(case.mask)
    apart = in_space(stored, case.geometry.affine) - of_files(sources, mask)
    assert np.abs(apart).max() < 1e-3
    contours = write(tmp_path / "rt.dcm", structure_set(sources, {"lung": mask}))
    drawn, _ = read_series(folder, "lung", contours)
    assert (drawn.mask == case.mask).mean() > 0.999


def test_masks_are_read_by_others_where_they_were_written(series, tmp_path):
    folder, sources, mask = series
    truth = write(tmp_path / "seg.dcm", segmentation(sources, mask.astype(np.uint8), ["lung"]))
    case, _ = read_series(folder, "lung", truth)
    assert case.geometry is not None
    expected = of_files(sources, mask)
    write_nifti_mask(tmp_path / "m.nii.gz", case.mask, case.geometry)
    loaded = nibabel.load(tmp_path / "m.nii.gz")
    assert np.abs(in_space(np.asarray(loaded.dataobj) > 0, loaded.affine) - expected).max() < 1e-3
    image = SimpleITK.ReadImage(str(tmp_path / "m.nii.gz"))
    voxels = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0) > 0
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    places = in_space(voxels, np.diag([-1.0, -1, 1, 1]) @ affine)
    assert np.abs(places - expected).max() < 1e-2

    write_segmentation(tmp_path / "s.dcm", case.mask, case.geometry, "lung")
    data = highdicom.seg.segread(tmp_path / "s.dcm")
    uids = [s.SOPInstanceUID for s in sources]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = data.get_pixels_by_source_instance(
            uids, combine_segments=False, assert_missing_frames_are_empty=True
        )
    assert (read[..., 0].astype(bool) == mask).all()
    assert data.get_segment_numbers() == [1]
    assert data.get_segment_description(1).segment_label == "lung"
    again, _ = read_series(folder, "lung", tmp_path / "s.dcm")
    assert (again.mask == case.mask).all()


def test_nobodys_name_is_in_a_mask_unless_it_was_asked_for(tmp_path):
    image, labels = piece()
    sources = write_series(tmp_path / "in", image, PatientName="Doe^Jane", PatientID="4711")
    truth = segmentation(sources, (labels == 5).astype(np.uint8), ["lung"])
    case, _ = read_series(tmp_path / "in", "lung", write(tmp_path / "t.dcm", truth))
    assert case.geometry is not None
    for keep in (False, True):
        write_segmentation(tmp_path / "s.dcm", case.mask, case.geometry, "lung", keep)
        assert (b"Doe^Jane" in (tmp_path / "s.dcm").read_bytes()) is keep
        data = dcmread(tmp_path / "s.dcm")
        assert keep or not any(data.get(name) for name in IDENTIFIERS)


def test_one_file_of_many_frames_is_a_volume(tmp_path):
    image, _ = piece()
    sources = write_series(tmp_path / "in", image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = highdicom.legacy.LegacyConvertedEnhancedCTImage(
            sources, highdicom.UID(), 1, highdicom.UID(), 1
        )
    (tmp_path / "one").mkdir()
    whole.save_as(tmp_path / "one" / "all.dcm")
    shown = {"window": "-160,240"}  # the conversion adds a window of its own
    single, _ = read_series(tmp_path / "in", "lung", **shown)
    for path in (tmp_path / "one", tmp_path / "one" / "all.dcm"):
        case, _ = read_series(path, "lung", **shown)
        assert (case.image == single.image).all()
        assert case.geometry is not None and single.geometry is not None
        assert np.allclose(case.geometry.affine, single.geometry.affine)
        mask = np.zeros(case.mask.shape, bool)
        mask[2, 5:9, 4:9] = True
        write_segmentation(tmp_path / "s.dcm", mask, case.geometry, "lung")
        again, _ = read_series(path, "lung", tmp_path / "s.dcm")
        assert (again.mask == mask).all()


def test_a_tilted_stack_keeps_its_shear(tmp_path):
    image, _ = piece()
    slices = [slice_dataset(pixels, i) for i, pixels in enumerate(image)]
    for i, data in enumerate(slices):
        x, y, z = (float(v) for v in data.ImagePositionPatient)
        data.ImagePositionPatient = [x, y + 1.5 * i, z]
        write(tmp_path / "in" / f"{i}.dcm", data)
    case, _ = read_series(tmp_path / "in", "lung")
    assert case.geometry is not None
    mask = np.zeros(case.mask.shape, bool)
    mask[3, 5:9, 4:9] = True
    write_nifti_mask(tmp_path / "m.nii.gz", mask, case.geometry)
    loaded = nibabel.load(tmp_path / "m.nii.gz")
    assert np.allclose(loaded.affine, case.geometry.affine, atol=1e-4)
    assert (case.geometry.shown(np.asarray(loaded.dataobj) > 0) == mask).all()


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR"])
def test_a_nifti_mask_has_the_header_of_its_scan(tmp_path, codes):
    image, labels = piece()
    scan = save(tmp_path / "scan.nii.gz", image, codes)
    case = read_volume_file(scan, "lung", save(tmp_path / "label.nii.gz", labels, codes), value=5)
    assert case.geometry is not None
    write_nifti_mask(tmp_path / "m.nii.gz", case.mask, case.geometry)
    own, written = nibabel.load(scan), nibabel.load(tmp_path / "m.nii.gz")
    for name in ("qform_code", "sform_code", "pixdim", "qoffset_x", "srow_x", "srow_z"):
        assert np.allclose(own.header[name], written.header[name], atol=1e-5), name
    truth = np.asarray(nibabel.load(tmp_path / "label.nii.gz").dataobj) == 5
    assert (np.asarray(written.dataobj).astype(bool) == truth).all()
    before = (tmp_path / "m.nii.gz").read_bytes()
    write_nifti_mask(tmp_path / "m.nii.gz", case.mask, case.geometry)
    assert (tmp_path / "m.nii.gz").read_bytes() == before
    write_slices(tmp_path / "png", case.mask)
    assert len(list((tmp_path / "png").glob("slice_*.png"))) == case.depth


def spoiled(tmp_path, how):
    image, _ = piece()
    slices = [slice_dataset(pixels, i) for i, pixels in enumerate(image)]
    if how == "missing":
        del slices[2]
    elif how == "mixed":
        slices += [slice_dataset(pixels, i, series=2) for i, pixels in enumerate(image)]
    elif how == "nowhere":
        for data in slices:
            del data.ImagePositionPatient
    elif how == "doubled":
        slices += [slice_dataset(image[0], 3, SOPInstanceUID="1.2.3")]
    elif how == "none":
        slices = []
    for i, data in enumerate(slices):
        write(tmp_path / "in" / f"{i}.dcm", data)
    (tmp_path / "in").mkdir(exist_ok=True)
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "slices are missing in 1 places"),
        ("mixed", "2 series of images.*--series UID"),
        ("nowhere", "do not say where they lie"),
        ("doubled", "1 slices lie where others lie already"),
        ("none", "no DICOM image"),
    ],
)
def test_a_series_that_is_no_volume_is_refused(tmp_path, how, words):
    with pytest.raises(CaseError, match=words):
        read_series(spoiled(tmp_path, how), "lung")


def test_one_of_several_series_is_chosen_by_its_uid(tmp_path):
    folder = spoiled(tmp_path, "mixed")
    uid = str(dcmread(folder / "0.dcm").SeriesInstanceUID)
    (folder / "notes.txt").write_text("hello")
    case, left_out = read_series(folder, "lung", uid=uid)
    assert case.depth == 6 and left_out == {"files that are not DICOM": 1}
    with pytest.raises(CaseError, match=r"no series 9\.9; there are"):
        read_series(folder, "lung", uid="9.9")


def test_truth_that_is_another_ones_is_refused(tmp_path):
    image, labels = piece()
    sources = write_series(tmp_path / "in", image)
    others = write_series(tmp_path / "other", image, series=7)
    mask = (labels == 5).astype(np.uint8)
    with pytest.raises(CaseError, match="no target 'liver'"):
        both = np.stack([mask, labels == 6], axis=-1).astype(np.uint8)
        truth = segmentation(sources, both, ["right lung", "left lung"])
        read_series(tmp_path / "in", "liver", write(tmp_path / "a.dcm", truth))
    with pytest.raises(CaseError, match="refers to"):
        truth = segmentation(others, mask, ["lung"])
        read_series(tmp_path / "in", "lung", write(tmp_path / "b.dcm", truth))
    with pytest.raises(CaseError, match="neither a DICOM SEG nor an RTSTRUCT"):
        read_series(tmp_path / "in", "lung", next((tmp_path / "in").iterdir()))


def test_what_cannot_be_a_segmentation_is_refused(tmp_path):
    image, _ = piece()
    volume = VolumeCase("v", np.zeros((3, 4, 5), np.uint8), np.zeros((3, 4, 5), bool), "x")
    scan = read_volume_file(save(tmp_path / "scan.nii.gz", image), "x")
    assert scan.geometry is not None and volume.geometry is None
    with pytest.raises(CaseError, match="write it as NIfTI"):
        write_segmentation(tmp_path / "s.dcm", scan.mask, scan.geometry, "x")
    write_series(tmp_path / "in", image)
    case, _ = read_series(tmp_path / "in", "x")
    assert case.geometry is not None
    with pytest.raises(CaseError, match="mask is empty"):
        write_segmentation(tmp_path / "s.dcm", case.mask, case.geometry, "x")
    assert not (tmp_path / "s.dcm").exists()


def test_nothing_that_names_somebody_is_copied_into_a_mask(tmp_path):
    image, _ = piece()
    names = (
        *("PatientName", "OtherPatientNames", "PatientMotherBirthName", "PatientComments"),
        *("ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName"),
        *("InstitutionName", "DeviceSerialNumber", "StudyID", "StudyDescription"),
        *("AccessionNumber", "PatientAddress", "SeriesDescription", "PatientID"),
    )
    write_series(tmp_path / "in", image, **{name: f"Doe {name[:9]}" for name in names})
    case, _ = read_series(tmp_path / "in", "x")
    assert case.geometry is not None and "Doe" not in repr((case.key, case.group, case.source))
    mask = np.ones(case.mask.shape, bool)
    for keep in (False, True):
        write_segmentation(tmp_path / "s.dcm", mask, case.geometry, "x", keep)
        assert (b"Doe" in (tmp_path / "s.dcm").read_bytes()) is keep
        highdicom.seg.segread(tmp_path / "s.dcm")
