"""Label volumes on another grid than their image: refused with both grids, or carried over."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_gym.cases.files import FileData, index_dataset
from medseg_gym.cases.nifti import NiftiFormat
from medseg_gym.cases.volumes import Volume, fit_labels, nearest

SHAPE = (24, 20, 6)  # voxels along the file's axes


def affine(
    spacing: tuple[float, float, float] = (1.0, 1.0, 3.0),
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    directions: np.ndarray | None = None,
) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3) if directions is None else directions) * np.array(spacing)
    matrix[:3, 3] = origin
    return matrix


def turned(*angles: float) -> np.ndarray:
    """Turned about x, y and z, by degrees."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", angles, degrees=True).as_matrix()


def put(path: Path, voxels: np.ndarray, where: np.ndarray) -> None:
    """Write a volume as NIfTI, or through SimpleITK where the name asks for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".nii", ".nii.gz")):
        nibabel.save(nibabel.Nifti1Image(voxels, where), path)
        return
    SimpleITK.WriteImage(itk(voxels, where), str(path))


def itk(voxels: np.ndarray, where: np.ndarray) -> SimpleITK.Image:
    """An ITK image; ITK counts to the left and to the back, NIfTI to the right and the front."""
    flipped = np.diag([-1.0, -1.0, 1.0, 1.0]) @ where
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels.T))
    lengths = np.linalg.norm(flipped[:3, :3], axis=0)
    image.SetSpacing(lengths.tolist())
    image.SetOrigin(flipped[:3, 3].tolist())
    image.SetDirection((flipped[:3, :3] / lengths).ravel().tolist())
    return image


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(-100, 200, shape).astype(np.int16)


def blocks(shape: tuple[int, ...]) -> np.ndarray:
    """Labels 1 and 2 in two boxes."""
    labels = np.zeros(shape, np.uint8)
    a, b, c = (n // 6 for n in shape)
    labels[a : 4 * a, b : 3 * b, c : 5 * c] = 1
    labels[3 * a : 5 * a, 2 * b : 5 * b, 2 * c :] = 2
    return labels


def opened(root: Path, options: str = "") -> FileData:
    return index_dataset(NiftiFormat, f"{root}?min_area=1{options}")


def carried(data: FileData) -> np.ndarray:
    """The labels of all cases as (slices, rows, columns), as they are shown."""
    assert not data.bad, [str(defect) for defect in data.bad]
    record = data.records[0]
    image = Volume(data.dataset_format.path(record.files[0]))
    labels = np.zeros(image.view.shape, np.uint8)
    for one in data.records:
        mask = data.case(one).mask
        assert mask.sum() == one.area
        labels[one.place["slice"]][mask] = int(one.target.split()[1])
    return labels


def shown(voxels: np.ndarray) -> np.ndarray:
    """(I, J, K) of axes right, front, up as slices, rows to the back, columns to the left."""
    return voxels.transpose(2, 1, 0)[:, ::-1, ::-1]


def notes(data: FileData) -> str:
    return "\n".join(str(defect) for defect in data.defects if defect.note)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_twice_as_coarse_is_every_label_repeated(tmp_path, suffix):
    coarse = blocks((12, 10, 6))
    put(tmp_path / f"a_image{suffix}", noise(SHAPE), affine())
    put(tmp_path / f"a_label{suffix}", coarse, affine((2, 2, 3), (0.5, 0.5, 0)))
    (defect,) = opened(tmp_path).bad
    assert "the labels are 10 x 12 at 2 mm" in defect.cause
    assert "the image is 20 x 24 at 1 mm" in defect.cause
    assert "6 slices 3 mm apart" in defect.cause and "resample=nearest" in defect.cause
    data = opened(tmp_path, "&resample=nearest")
    expected = coarse.repeat(2, axis=0).repeat(2, axis=1)
    assert np.array_equal(carried(data), shown(expected))
    assert "labels carried over to another grid: the labels are 10 x 12 at 2 mm" in notes(data)
    assert not data.left_out or "voxels" not in str(data.left_out)


OTHERS = {
    "coarse": ((11, 9, 5), affine((2.3, 2.1, 3.7), (0.4, 0.7, -0.6))),
    "fine": ((60, 50, 30), affine((0.43, 0.41, 0.59), (0.1, -0.2, 0.3))),
    "anisotropic": ((30, 9, 12), affine((0.83, 2.3, 1.7), (-0.4, 0.3, 0.2))),
    "another origin": (SHAPE, affine((1, 1, 3), (3.2, -2.3, 2.2))),
    "partly beside": (SHAPE, affine((1, 1, 3), (12.2, 9.7, 7.1))),
    "fewer slices": ((24, 20, 3), affine((1, 1, 3), (0, 0, 6.0))),
    "more slices": ((24, 20, 18), affine((1, 1, 1.0), (0, 0, -0.9))),
    "one slice": ((24, 20, 1), affine((1, 1, 3), (0, 0, 6.0))),
    "mirrored axes": ((12, 10, 6), affine((2, 2, 3), (22.4, 18.4, 15.2), np.diag([-1, -1, -1]))),
    "left-handed": ((12, 10, 6), affine((2, 2, 3), (22.4, 0.3, 0.2), np.diag([-1, 1, 1]))),
    "axes swapped": ((6, 12, 10), affine((3, 2, 2), (0.4, 0.3, 0.2), np.eye(3)[[1, 2, 0]])),
    "oblique": ((26, 22, 8), affine((1.1, 0.9, 2.3), (2.2, -3.1, 1.3), turned(7, -11, 23))),
}


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
@pytest.mark.parametrize("name", OTHERS)
def test_labels_are_sampled_as_simpleitk_samples_them(tmp_path, name, suffix):
    shape, where = OTHERS[name]
    labels = blocks(shape) if min(shape) > 5 else (noise(shape) > 100).astype(np.uint8)
    put(tmp_path / "a_image.nii.gz", noise(SHAPE), affine())
    put(tmp_path / f"a_label{suffix}", labels, where)
    (defect,) = opened(tmp_path).bad
    assert "the labels are" in defect.cause and "20 x 24 at 1 mm" in defect.cause
    assert "resample=nearest" in defect.cause
    if name in ("another origin", "partly beside"):
        assert "first pixel at" in defect.cause and "mm away" in defect.cause
    if name == "oblique":
        assert "rows counted along" in defect.cause
    sampled = SimpleITK.Resample(
        itk(labels, where),
        itk(noise(SHAPE), affine()),
        SimpleITK.Transform(),
        SimpleITK.sitkNearestNeighbor,
    )
    expected = SimpleITK.GetArrayFromImage(sampled).T
    assert expected.any()
    data = opened(tmp_path, "&resample=nearest")
    assert np.array_equal(carried(data), shown(expected))
    cut = "labelled voxels that lie outside of the image" in str(data.left_out)
    assert cut or name not in ("partly beside", "another origin")


@pytest.mark.parametrize("axis", ["coronal", "sagittal"])
def test_another_axis_shows_the_same_labels(tmp_path, axis):
    coarse = blocks((12, 10, 6))
    put(tmp_path / "a_image.nii.gz", noise(SHAPE), affine())
    put(tmp_path / "a_label.nii.gz", coarse, affine((2, 2, 3), (0.5, 0.5, 0)))
    data = opened(tmp_path, f"&resample=nearest&axis={axis}")
    assert not data.bad
    expected = coarse.repeat(2, axis=0).repeat(2, axis=1)
    assert sum(record.area for record in data.records) == int((expected > 0).sum())
    record = data.records[0]
    mask = data.case(record).mask
    stored = expected[:, ::-1] if axis == "coronal" else expected[::-1]
    plane = stored.take(record.place["slice"], axis=1 if axis == "coronal" else 0)
    value = int(record.target.split()[1])
    assert np.array_equal(mask, (plane == value).T[::-1, ::-1])


@settings(max_examples=15)
@given(
    st.tuples(*[st.floats(-0.045, 0.045)] * 3),
    st.floats(-0.0005, 0.0005),
)
def test_rounded_affines_are_one_grid(shift, stretch):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        put(root / "a_image.nii", noise(SHAPE), affine())
        put(root / "a_label.nii", blocks(SHAPE), affine((1 + stretch, 1, 3), shift))
        plain, asked = opened(root), opened(root, "&resample=nearest")
        assert not plain.bad and plain.records == asked.records
        assert "carried" not in notes(asked)
        assert np.array_equal(carried(plain), shown(blocks(SHAPE)))


def test_labels_that_lie_nowhere_near_are_refused_all_the_same(tmp_path):
    put(tmp_path / "a_image.nii.gz", noise(SHAPE), affine())
    put(tmp_path / "a_label.nii.gz", blocks(SHAPE), affine((1, 1, 3), (0, 0, 500)))
    (defect,) = opened(tmp_path, "&resample=nearest").bad
    assert "does not overlap its image 'a_image.nii.gz' anywhere" in defect.cause


def test_labels_that_vanish_are_counted(tmp_path):
    fine = np.zeros((96, 80, 6), np.uint8)
    fine[8:40, 8:40] = 1
    fine[61, 41, 2] = 7  # one voxel of sixteen under a pixel, and not the nearest
    put(tmp_path / "a_image.nii.gz", noise(SHAPE), affine())
    put(tmp_path / "a_label.nii.gz", fine, affine((0.25, 0.25, 3), (-0.375, -0.375, 0)))
    data = opened(tmp_path, "&resample=nearest")
    assert "label 7: labels without a voxel on the grid of the image: 1 left out" in notes(data)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, ">i2"])
def test_values_survive_scaling_and_storage(tmp_path, dtype):
    coarse = blocks((12, 10, 6))
    where = affine((2, 2, 3), (0.5, 0.5, 0))
    image = nibabel.Nifti1Image((coarse * 3 + 5).astype(dtype), where)
    image.header.set_slope_inter(1 / 3, -5 / 3)
    put(tmp_path / "a_image.nii.gz", noise((30, 20, 6)), affine())  # reaches over the labels
    nibabel.save(image, tmp_path / "a_label.nii.gz")
    data = opened(tmp_path, "&resample=nearest")
    expected = np.zeros((30, 20, 6), np.uint8)
    expected[:24] = coarse.repeat(2, axis=0).repeat(2, axis=1)
    assert np.array_equal(carried(data), shown(expected))


def test_one_hot_channels_stay_one_hot_beyond_the_labels(tmp_path):
    coarse = blocks((12, 10, 6))
    channels = np.stack([coarse == value for value in range(3)], axis=3).astype(np.uint8)
    put(tmp_path / "a_image.nii.gz", noise((30, 20, 6)), affine())
    put(tmp_path / "a_label.nii.gz", channels, affine((2, 2, 3), (0.5, 0.5, 0)))
    data = opened(tmp_path, "&resample=nearest")
    expected = np.zeros((30, 20, 6), np.uint8)
    expected[:24] = coarse.repeat(2, axis=0).repeat(2, axis=1)
    assert np.array_equal(carried(data), shown(expected))
    assert data.targets == ("label 1", "label 2")


def test_a_huge_grid_is_sampled_once(tmp_path, monkeypatch):
    put(tmp_path / "a_image.nii", noise(SHAPE), affine())
    put(tmp_path / "a_label.nii", blocks((12, 10, 6)), affine((2, 2, 3), (0.5, 0.5, 0)))
    from medseg_gym.cases.volumes import resampling

    calls = []

    def counted(*given_):
        calls.append(1)
        return nearest(*given_)

    monkeypatch.setattr(resampling, "nearest", counted)
    for _ in range(3):
        labels = fit_labels(
            Volume(tmp_path / "a_image.nii"), Volume(tmp_path / "a_label.nii"), "nearest"
        )
        assert [labels.plane(i).shape for i in range(6)] == [(20, 24)] * 6
    assert len(calls) == 1


@given(st.integers(1, 4), st.integers(0, 2**32))
def test_whole_factors_repeat_exactly(factor, seed):
    labels = np.random.default_rng(seed).integers(0, 9, (5, 4, 3)).astype(np.int16)
    spacing = np.array([0.7, 1.3, 2.9])
    coarse = affine(tuple(spacing * factor), tuple(spacing * (factor - 1) / 2))
    sampled = nearest(
        labels, coarse, tuple(n * factor for n in labels.shape), affine(tuple(spacing))
    )
    expected = labels
    for place in range(3):
        expected = expected.repeat(factor, axis=place)
    assert sampled.dtype == labels.dtype and np.array_equal(sampled, expected)
