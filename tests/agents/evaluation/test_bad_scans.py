"""Bad scans through run, eval and load_volumes: a clear error or a counted note, never a score."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from medseg_agents.evaluation.options import RunOptions
from medseg_agents.evaluation.volume_run import run_volume

from medseg_gym.cases import CaseError, load_cases
from medseg_gym.cases.volume_source import load_volumes
from medseg_gym.cli.main import main
from tests.cases.files.dicom_writing import segmentation, slice_dataset, write
from tests.cases.files.volume_writing import piece, save

TILT = 30.0


def run(scan: Path, truth: Path | None, out: Path, **changes) -> dict:
    values = {"target": "lung", "policy": "oracle-box", "backbone": "ellipse", "modality": "CT"}
    if truth is None:
        values["policy"] = "centre-box"
    return run_volume(scan, RunOptions(**{**values, "window": "lung", **changes}), out, truth)


def evaluated(monkeypatch, cases: str, out: Path) -> int:
    """`medseg eval`; returns its exit code."""
    words = ["eval", "--cases", cases, "--policy", "oracle-box", "--backbone", "ellipse"]
    monkeypatch.setattr(sys, "argv", ["medseg", *words, "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def lung(labels: np.ndarray) -> np.ndarray:
    return (labels == 5).astype(np.float32)


def four(view: np.ndarray) -> np.ndarray:
    return np.stack([view, view], axis=-1)


def save_4d(path: Path, view: np.ndarray) -> Path:
    """Two volumes along a fourth axis, on the grid of `save`."""
    plain = nibabel.load(save(path, view))
    voxels = np.asarray(plain.dataobj)
    nibabel.save(nibabel.Nifti1Image(four(voxels), plain.affine), path)
    return path


def volume_files(folder: Path, how: str) -> tuple[Path, Path]:
    """A scan and its truth as NIfTI, spoiled."""
    image, labels = piece(step=4)
    image, truth = image.astype(np.float32), lung(labels)
    where: dict = {}
    if how == "nan":
        image[2, 3, 3] = np.nan
    elif how == "nan truth":
        truth[2, 3, 3] = np.nan
    elif how == "probabilities":
        truth *= 0.7
    elif how == "all background":
        truth[:] = 0
    elif how == "other origin":
        where = {"origin": (0.0, 0.0, 0.0)}
    elif how == "other size":
        truth = truth[1:]
    elif how == "one slice":
        image, truth = image[2:3], truth[2:3]
    scan = (save_4d if how == "4D" else save)(folder / "imagesTr" / "ct.nii.gz", image)
    if how == "4D truth":
        return scan, save_4d(folder / "labelsTr" / "ct.nii.gz", truth)
    return scan, save(folder / "labelsTr" / "ct.nii.gz", truth, **where)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("nan", "NaN or infinite"),
        ("nan truth", "labels are NaN or infinite"),
        ("probabilities", "labels must be whole numbers"),
        ("other origin", "first pixel at"),
        ("other size", "5 slices"),
        ("4D", "2 volumes along a fourth axis"),
        ("4D truth", "2 channels"),
    ],
)
def test_volume_files_that_cannot_be_scored_are_refused(how, words, tmp_path, monkeypatch, capsys):
    scan, truth = volume_files(tmp_path / "in", how)
    with pytest.raises(CaseError, match=words):
        run(scan, truth, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    spec = f"volume:{scan}?truth={truth}&modality=CT&target=lung"
    with pytest.raises(CaseError, match=words):
        load_volumes(spec)
    assert evaluated(monkeypatch, spec, tmp_path / "eval")
    assert words.split()[-1] in capsys.readouterr().err
    assert not (tmp_path / "eval" / "summary.json").exists()


def test_a_truth_that_was_carried_over_is_counted(tmp_path):
    scan, truth = volume_files(tmp_path / "in", "other origin")
    with pytest.raises(CaseError, match="does not overlap"):
        run(scan, truth, tmp_path / "far", resample="nearest")
    moved = save(tmp_path / "moved.nii.gz", lung(piece(step=4)[1]), origin=(43.0, -30.0, 90.0))
    record = run(scan, moved, tmp_path / "run", resample="nearest")
    assert record["left_out"]["label files carried over to another grid"] == 1
    assert record["left_out"]["labelled voxels that lie outside of the image"] > 1
    (volume,) = (source := load_volumes(f"volume:{scan}?truth={moved}&resample=nearest"))
    assert source.left_out == record["left_out"] and volume.mask.any()


@pytest.mark.parametrize("how", ["nan truth", "probabilities", "other origin", "other size", "4D"])
def test_the_reader_of_folders_refuses_them_as_well(how, tmp_path, monkeypatch):
    volume_files(tmp_path / "in", how)
    spec = f"nifti:{tmp_path / 'in'}?window=lung&splits=0,0,100"
    for opening in (load_cases, load_volumes):
        with pytest.raises(CaseError):
            opening(spec, "test")
    assert evaluated(monkeypatch, spec, tmp_path / "eval")


def test_nan_in_one_slice_fails_where_it_is_read_and_skip_bad_counts_it(tmp_path, monkeypatch):
    volume_files(tmp_path / "in", "nan")
    spec = f"nifti:{tmp_path / 'in'}?window=lung&splits=0,0,100"
    with pytest.raises(CaseError, match="NaN or infinite"):
        load_volumes(spec, "test")[0]
    assert evaluated(monkeypatch, spec, tmp_path / "eval")
    assert not evaluated(monkeypatch, f"{spec}&skip_bad=1", tmp_path / "skipping")
    summary = json.loads((tmp_path / "skipping" / "summary.json").read_text())
    assert summary["settings"]["left_out"] == {"defects (skip_bad=1 leaves out what has them)": 1}
    (row,) = summary["volume_rows"]
    assert (row["volumes"], row["unscored"], row["volume_dice"]) == (0, 1, None)
    assert "NaN or infinite" in summary["unscored"][0]
    assert not evaluated(monkeypatch, f"{spec}&nan=-1000", tmp_path / "mended")
    (row,) = json.loads((tmp_path / "mended" / "summary.json").read_text())["volume_rows"]
    assert (row["volumes"], row["unscored"]) == (1, 0)


def test_a_truth_of_background_alone_is_said(tmp_path, monkeypatch):
    scan, truth = volume_files(tmp_path / "in", "all background")
    record = run(scan, truth, tmp_path / "run", policy="centre-box")
    assert record["notes"] == ("the truth is empty",) and record["scores"]["dice"] == 0.0
    assert record["scores"]["hd95"] is None
    with pytest.raises(CaseError, match="no voxel above 0; nothing is to be segmented"):
        load_volumes(f"volume:{scan}?truth={truth}")
    spec = f"nifti:{tmp_path / 'in'}?window=lung"
    with pytest.raises(CaseError, match="label files without a label above 0: 1"):
        load_cases(spec, "test")
    assert evaluated(monkeypatch, spec, tmp_path / "eval")


def test_of_a_single_slice_dice_alone_is_given_and_the_reason(tmp_path, monkeypatch, capsys):
    scan, truth = volume_files(tmp_path / "in", "one slice")
    record = run(scan, truth, tmp_path / "run", axis="axial")
    assert record["slices"] == 1 and record["scores"]["dice"] > 0.5
    assert [v for name, v in record["scores"].items() if name != "dice"] == [None] * 4
    (note,) = record["notes"]
    assert note.startswith("one slice")
    written = nibabel.load(tmp_path / "run" / "mask.nii.gz")
    assert written.shape == nibabel.load(scan).shape
    spec = f"nifti:{tmp_path / 'in'}?window=lung&splits=0,0,100"
    assert not evaluated(monkeypatch, spec, tmp_path / "eval")
    (row,) = json.loads((tmp_path / "eval" / "summary.json").read_text())["volume_rows"]
    assert row["volume_dice"] == pytest.approx(record["scores"]["dice"], abs=0.05)
    assert row["volume_nsd_1mm"] is None and row["volume_error_ml"] is None
    assert f"1 of 1 volumes: {note}" in capsys.readouterr().out.replace("\n", " ")


def series(folder: Path, how: str) -> tuple[Path, Path]:
    """A folder of DICOM and a SEG of its first series, spoiled."""
    image, labels = piece(step=4)
    slices = [slice_dataset(pixels, i) for i, pixels in enumerate(image)]
    truth = segmentation(slices, lung(labels).astype(np.uint8), ["lung"])
    if how == "missing":
        del slices[2]
    elif how == "gap":  # and the truth knows nothing of the missing one
        del slices[2]
        labels = np.delete(labels, 2, 0)
        truth = segmentation(slices, lung(labels).astype(np.uint8), ["lung"])
    elif how == "mixed":
        slices += [slice_dataset(pixels, i, series=2) for i, pixels in enumerate(image)]
    elif how == "same numbers":
        for data in slices:
            data.InstanceNumber = 1
    elif how == "same instance":
        slices.append(slice_dataset(image[0], 0))
    elif how == "same place":
        slices.append(slice_dataset(image[0], 3, SOPInstanceUID="1.2.3"))
    elif how == "tilted":
        for i, data in enumerate(slices):
            x, y, z = (float(v) for v in data.ImagePositionPatient)
            data.ImagePositionPatient = [x, y + np.tan(np.radians(TILT)) * 5.0 * i, z]
        truth = segmentation(slices, lung(labels).astype(np.uint8), ["lung"])
    elif how == "one slice":
        keep = int(np.argmax(lung(labels).sum(axis=(1, 2))))
        slices = slices[keep : keep + 1]
        truth = segmentation(slices, lung(labels)[keep : keep + 1].astype(np.uint8), ["lung"])
    for i, data in enumerate(slices):
        write(folder / f"{i}.dcm", data)
    return folder, write(folder.parent / "seg.dcm", truth)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "slices are missing in 1 places"),
        ("mixed", "2 series of images"),
        ("same place", "1 slices lie where others lie already"),
    ],
)
def test_series_that_are_no_volume_are_refused(how, words, tmp_path, monkeypatch, capsys):
    scan, truth = series(tmp_path / "in", how)
    with pytest.raises(CaseError, match=words):
        run(scan, truth, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    spec = f"volume:{scan}?truth={truth}&window=lung"
    with pytest.raises(CaseError, match=words):
        load_volumes(spec)
    assert evaluated(monkeypatch, spec, tmp_path / "eval")
    assert words in capsys.readouterr().err.replace("\n", " ")


def test_a_truth_that_refers_to_a_missing_slice_is_refused(tmp_path, monkeypatch, capsys):
    series(tmp_path / "in", "missing")
    spec = f"dicom:{tmp_path}?window=lung&splits=0,0,100"
    assert evaluated(monkeypatch, spec, tmp_path / "eval")
    assert "seg.dcm: 1 of" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["gap", "same place"])
def test_the_slices_of_such_a_series_are_played_and_its_volume_is_counted(
    how, tmp_path, monkeypatch, capsys
):
    series(tmp_path / "in", how)
    spec = f"dicom:{tmp_path}?window=lung&splits=0,0,100"
    with pytest.raises(CaseError):
        load_volumes(spec, "test")[0]
    assert not evaluated(monkeypatch, spec, tmp_path / "eval")
    summary = json.loads((tmp_path / "eval" / "summary.json").read_text())
    assert summary["rows"][0]["n"] and summary["volumes"] == []
    (row,) = summary["volume_rows"]
    assert (row["volumes"], row["unscored"], row["volume_dice"]) == (0, 1, None)
    words = "slices are missing" if how == "gap" else "lie where others lie already"
    assert words in summary["unscored"][0] and words in capsys.readouterr().out


def test_series_in_one_folder_are_told_apart_by_uid(tmp_path, monkeypatch):
    scan, truth = series(tmp_path / "in", "mixed")
    uid = str(slice_dataset(np.zeros((2, 2), np.int16)).SeriesInstanceUID)
    record = run(scan, truth, tmp_path / "run", series=uid)
    (volume,) = load_volumes(f"volume:{scan}?truth={truth}&series={uid}&target=lung&window=lung")
    assert record["slices"] == volume.depth == 6
    spec = f"dicom:{tmp_path}?window=lung&splits=0,0,100"
    assert not evaluated(monkeypatch, spec, tmp_path / "eval")
    (row,) = json.loads((tmp_path / "eval" / "summary.json").read_text())["volume_rows"]
    assert row["volumes"] == 1


def test_instance_numbers_that_are_all_the_same_change_nothing(tmp_path):
    plain = run(*series(tmp_path / "a" / "in", ""), tmp_path / "one")
    same = run(*series(tmp_path / "b" / "in", "same numbers"), tmp_path / "two")
    assert plain["scores"] == same["scores"] and plain["scores"]["dice"] > 0.5
    one, two = (nibabel.load(tmp_path / name / "mask.nii.gz") for name in ("one", "two"))
    assert (np.asarray(one.dataobj) == np.asarray(two.dataobj)).all()
    assert (one.affine == two.affine).all()


def test_an_instance_that_is_there_twice_is_taken_once_and_counted(tmp_path):
    plain = run(*series(tmp_path / "a" / "in", ""), tmp_path / "one")
    twice = run(*series(tmp_path / "b" / "in", "same instance"), tmp_path / "two")
    assert twice["scores"] == plain["scores"] and twice["slices"] == plain["slices"]
    (reason,) = twice["left_out"]
    assert "the same SOPInstanceUID" in reason and not plain["left_out"]


def test_of_a_tilted_stack_no_distance_is_given_and_its_millilitres_are_right(
    tmp_path, monkeypatch, capsys
):
    scan, truth = series(tmp_path / "in", "tilted")
    record = run(scan, truth, tmp_path / "run")
    scores = record["scores"]
    assert scores["hd95"] is scores["nsd_1mm"] is scores["nsd_2mm"] is None
    (note,) = record["notes"]
    assert f"tilted by {TILT:.1f} degrees" in note
    voxel = 3.0 * 2.5 * 5.0 / 1000  # the gap along the normal, not along the stack
    assert record["mask_ml"] == pytest.approx(record["mask_voxels"] * voxel, rel=1e-4)
    (volume,) = load_volumes(f"volume:{scan}?truth={truth}&target=lung&window=lung")
    assert volume.volume_ml == pytest.approx(volume.mask.sum() * voxel, rel=1e-4)
    error = (record["mask_voxels"] - volume.mask.sum()) * voxel
    assert scores["volume_error_ml"] == pytest.approx(error, rel=1e-4)
    spec = f"dicom:{tmp_path}?window=lung&splits=0,0,100"
    assert not evaluated(monkeypatch, spec, tmp_path / "eval")
    (row,) = json.loads((tmp_path / "eval" / "summary.json").read_text())["volume_rows"]
    assert row["volume_hd95"] is None and row["volume_dice"] > 0.5
    assert f"1 of 1 volumes: {note}" in capsys.readouterr().out.replace("\n", " ")


def test_one_dicom_slice_has_no_thickness_and_so_no_millilitres(tmp_path):
    record = run(*series(tmp_path / "in", "one slice"), tmp_path / "run")
    assert record["spacing_mm"] is None and "mask_ml" not in record
    assert record["scores"]["dice"] > 0.5 and record["scores"]["volume_error_ml"] is None


def test_an_empty_mask_is_no_segmentation_and_the_record_says_so(tmp_path):
    scan, _ = series(tmp_path / "in", "")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mask.dcm").write_bytes(b"of an earlier run")
    record = run(scan, None, tmp_path / "run", policy="stop", save=("seg", "nifti"))
    assert list(record["not_written"]) == ["mask.dcm"] and "mask.dcm" not in record["files"]
    assert not (tmp_path / "run" / "mask.dcm").exists()
    assert (tmp_path / "run" / "record.json").exists()
    assert not np.asarray(nibabel.load(tmp_path / "run" / "mask.nii.gz").dataobj).any()
