"""Initial masks from label volumes: the same voxels whatever their order, and what is refused."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from medseg_gym.cases import load_cases
from medseg_gym.cases.initial import providers
from medseg_gym.errors import CaseError

nib = pytest.importorskip("nibabel")
sitk = pytest.importorskip("SimpleITK")

SHAPE, AFFINE = (40, 50, 12), np.diag([-1.0, 1.0, 3.0, 1.0])


def labels_of(shift: int = 0) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[10:25, 12:30, 3:9] = 1
    labels[26:36, 31:44, 2:7] = 2
    return np.roll(labels, shift, 0)


def save(path, array, affine=AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def save_nrrd(path, array) -> None:
    """The voxels of `AFFINE`, in ITK's left-right-back directions."""
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetSpacing((1.0, 1.0, 3.0))
    image.SetDirection((1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0))
    sitk.WriteImage(image, str(path))


@pytest.fixture
def data(tmp_path):
    tmp_path = tmp_path / "data"
    rng = np.random.default_rng(0)
    for i in range(3):
        image = rng.integers(-100, 200, SHAPE).astype(np.int16)
        save(tmp_path / "imagesTr" / f"case{i}_0000.nii.gz", image)
        save(tmp_path / "labelsTr" / f"case{i}.nii.gz", labels_of())
        save(tmp_path / "pred" / f"case{i}.nii.gz", labels_of(3))
    return tmp_path


def opened(data, mask, split="train", **options):
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return load_cases(f"nifti:{data}?labels=1:liver,2:spleen&initial_mask={mask}{query}", split)


def expected(data, split="train"):
    """Return the masks that the same labels give as truth."""
    other = data.parent / "as_truth"
    for path in (data / "imagesTr").iterdir():
        save(other / "imagesTr" / path.name, np.asarray(nib.load(path).dataobj))
        save(other / "labelsTr" / path.name.replace("_0000", ""), labels_of(3))
    source = load_cases(f"nifti:{other}?labels=1:liver,2:spleen", split)
    return {case.key: case.mask for case in (source[i] for i in range(len(source)))}


@pytest.mark.parametrize("form", ["same", "turned", "nrrd"])
def test_slices_begin_with_their_place_in_a_label_volume(data, form):
    wanted = expected(data)
    for path in list((data / "pred").iterdir()):
        if form == "turned":  # the same places in another order of voxels
            turned = labels_of(3)[::-1].transpose(1, 0, 2)
            affine = np.array([[0, 1.0, 0, -39], [1.0, 0, 0, 0], [0, 0, 3.0, 0], [0, 0, 0, 1]])
            save(path, turned, affine)
        elif form == "nrrd":
            save_nrrd(path.parent / path.name.replace(".nii.gz", ".nrrd"), labels_of(3))
            path.unlink()
    ending = "nrrd" if form == "nrrd" else "nii.gz"
    pattern = f"volume:{data}/pred/{{volume}}.{ending}?labels=1:liver,2:spleen"
    source = opened(data, pattern)
    assert len(source) == len(wanted) >= 8
    for index in range(len(source)):
        case = source[index]
        np.testing.assert_array_equal(case.initial_mask, wanted[case.key])
    both = opened(data, f"volume:{data}/pred/{{volume}}.{ending}")[0].initial_mask
    assert both.sum() > wanted[source.keys[0]].sum()  # of every label
    with gym.make("MedSeg-v0", cases=source, backbone="ellipse") as env:
        _, info = env.reset(seed=0)
        assert info["dice"] > 0.2


def test_a_scan_without_a_file_begins_with_nothing_where_that_is_wanted(data):
    for path in (data / "pred").iterdir():
        path.unlink()
    pattern = f"volume:{data}/pred/{{volume}}.nii.gz"
    assert opened(data, f"{pattern}?missing=empty")[0].initial_mask is None
    with pytest.raises(CaseError, match="is not there; with missing=empty such cases begin"):
        opened(data, pattern)[0]


@pytest.mark.parametrize(
    ("array", "affine", "told"),
    [
        (labels_of()[:, :, :-1], AFFINE, "has another grid than its scan"),
        (labels_of(), np.diag([-1.0, 1.0, 4.0, 1.0]), "corners up to 11 mm away; resample it"),
        (np.stack([labels_of()] * 2, -1), AFFINE, "has 2 channels, not one"),
        (labels_of() + np.float32(0.5), AFFINE, "whole"),
    ],
)
def test_volumes_that_do_not_fit_are_refused(data, array, affine, told):
    for path in (data / "pred").iterdir():
        save(path, array, affine)
    with pytest.raises(CaseError, match=told):
        opened(data, f"volume:{data}/pred/{{volume}}.nii.gz")[0]


def test_a_damaged_file_is_named(data):
    for path in (data / "pred").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CaseError, match=r"pred/case\d.nii.gz"):
        opened(data, f"volume:{data}/pred/{{volume}}.nii.gz")[0]


def test_targets_without_a_value_are_refused(data):
    source = opened(data, f"volume:{data}/pred/{{volume}}.nii.gz?labels=2:spleen")
    with pytest.raises(CaseError, match="gives no value for 'liver', only for 'spleen'"):
        source[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("volume:pred/all.nii.gz", "with {volume} in it"),
        ("volume:pred/{volume}.png", "ends as NIfTI, NRRD or MetaImage do"),
        ("volume:pred/{volume}.nii?labels=liver", "write VALUE:TARGET"),
        ("volume:pred/{volume}.nii?missing=no", "must be refuse or empty, got 'no'"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(text, told):
    with pytest.raises(CaseError, match=told):
        providers.make(text)


@pytest.mark.parametrize("spec", ["phantoms:fundus", "phantoms-volume"])
def test_cases_that_are_no_slices_of_files_are_refused(spec):
    with pytest.raises(CaseError, match=r"no slice of a scan in a file|made, not read from files"):
        load_cases(f"{spec}?initial_mask=volume:{{volume}}.nii", "val")[0]
