"""Volumes as cases: what is refused, slices, and the way back onto the file's grid."""

from __future__ import annotations

import pickle

import nibabel
import numpy as np
import pytest

from medseg_gym.cases import CaseError, VolumeCase
from medseg_gym.cases.volumes import VolumeGeometry, longest_axis
from medseg_gym.cases.volumes.scan import read_volume_file

IMAGE = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
MASK = IMAGE > 60


def case(**changes):
    return VolumeCase(**{"key": "v", "image": IMAGE, "mask": MASK, "target": "liver", **changes})


def test_a_volume_gives_its_slices_and_its_size():
    one = case(spacing=(5, 2, 1), group="p")
    assert (one.depth, one.height, one.width) == (4, 5, 6)
    assert one.volume_ml == pytest.approx(MASK.sum() * 10 / 1000)
    part = one.slice_case(3)
    assert part.spacing == (2.0, 1.0) and part.group == "p" and part.key == "v/slice-3"
    assert (part.mask == MASK[3]).all() and (part.image == IMAGE[3][:, :, None]).all()
    assert case().volume_ml is None and case().group == "v"
    assert not one.image.flags.writeable
    assert not pickle.loads(pickle.dumps(one)).mask.flags.writeable


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key": ""}, "non-empty"),
        ({"image": IMAGE.astype(float)}, "uint8"),
        ({"image": IMAGE[0]}, r"\(D, H, W\)"),
        ({"mask": MASK.astype(np.uint8)}, "bool"),
        ({"mask": MASK[1:]}, "same size"),
        ({"spacing": (1, 1)}, "three positive"),
        ({"spacing": (1, 0, 1)}, "three positive"),
        ({"spacing": (1, float("nan"), 1)}, "three positive"),
        ({"truth_known": False}, "empty mask"),
    ],
)
def test_what_cannot_be_a_volume_is_refused(changes, words):
    with pytest.raises(CaseError, match=words):
        case(**changes)


def turned_affine(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn * [0.7, 1.1, 4.0]
    affine[:3, 3] = rng.normal(size=3) * 50
    return affine


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("seed", range(6))
def test_a_mask_goes_back_onto_its_grid_on_every_kind_of_grid(tmp_path, seed, axis):
    rng = np.random.default_rng(seed)
    shape = (7, 6, 5)
    affine = turned_affine(seed)
    stored = rng.integers(0, 200, shape).astype(np.int16)
    labels = (rng.random(shape) < 0.3).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(stored, affine), tmp_path / "scan.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / "label.nii.gz")
    one = read_volume_file(tmp_path / "scan.nii.gz", "x", tmp_path / "label.nii.gz", axis=axis)
    assert one.geometry is not None
    assert (one.geometry.stored(one.mask) == labels.astype(bool)).all()
    assert (one.geometry.shown(labels.astype(bool)) == one.mask).all()
    assert one.image.shape == one.geometry.view.shape == one.mask.shape
    with pytest.raises(CaseError, match="is wanted"):
        one.geometry.stored(one.mask[1:])


def test_slices_are_cut_where_they_lie_furthest_apart(tmp_path):
    affine = np.diag([1.0, 4.0, 1.0, 1.0])
    assert longest_axis((5, 5, 5), affine) == "coronal"
    assert longest_axis((5, 5, 5), np.eye(4)) == "axial"
    voxels = np.random.default_rng(0).integers(0, 99, (6, 5, 7)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "scan.nii")
    one = read_volume_file(tmp_path / "scan.nii", "x")
    assert one.spacing == (4.0, 1.0, 1.0) and not one.truth_known
    assert one.depth == 5 and one.geometry is not None
    assert one.geometry.view.axis == "coronal"


def test_several_volumes_in_one_file_are_a_choice(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 99, (6, 5, 4, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "scan.nii")
    with pytest.raises(CaseError, match="3 volumes along a fourth axis; choose one with channel"):
        read_volume_file(tmp_path / "scan.nii", "x")
    one, two = (read_volume_file(tmp_path / "scan.nii", "x", channel=c) for c in (0, 2))
    assert (one.image != two.image).any()


def test_a_geometry_is_made_of_a_grid():
    geometry = VolumeGeometry.of((3, 4, 5), np.diag([2.0, 3.0, 1.0, 1.0]))
    assert geometry.spacing == (1.0, 3.0, 2.0) and geometry.view.shape == (5, 4, 3)
