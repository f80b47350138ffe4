"""`medseg run` on scans: a mask on the scan's own grid, scores in 3D, refusals."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from medseg_agents.evaluation.options import RunOptions
from medseg_agents.evaluation.volume_run import is_volume, run_volume
from typer.testing import CliRunner

from medseg_gym.cases.dicom.scan import read_series
from medseg_gym.cli.main import add_installed_commands, app
from medseg_gym.episodes import metrics
from medseg_gym.errors import MedSegError
from tests.cases.files.dicom_writing import segmentation, write, write_series
from tests.cases.files.volume_writing import SPACING, piece, save


def options(**changes):
    values = {"target": "right lung", "policy": "oracle-box", "backbone": "ellipse"}
    return RunOptions(**{**values, "modality": "CT", "window": "lung", "label": "5", **changes})


@pytest.fixture
def scan(tmp_path):
    image, labels = piece()
    return save(tmp_path / "scan.nii.gz", image, "PIR"), save(tmp_path / "l.nii.gz", labels, "PIR")


def test_a_scan_gives_a_mask_on_its_own_grid_and_its_scores(scan, tmp_path):
    seen = []
    out = tmp_path / "out"
    chosen = options(save=("nifti", "png"))
    record = run_volume(scan[0], chosen, out, scan[1], lambda done, total: seen.append(done))
    written, own = nibabel.load(out / "mask.nii.gz"), nibabel.load(scan[0])
    assert written.shape == own.shape and np.allclose(written.affine, own.affine)
    mask = np.asarray(written.dataobj) > 0
    truth = np.asarray(nibabel.load(scan[1]).dataobj) == 5
    assert record["scores"]["dice"] == pytest.approx(metrics.dice(mask, truth))
    stored = tuple(float(s) for s in own.header["pixdim"][1:4])
    scores = metrics.volume_scores(mask, truth, stored)
    for name, value in scores._asdict().items():
        assert record["scores"][name] == pytest.approx(value, rel=1e-4), name
    assert record["mask_voxels"] == mask.sum() > 0 and seen[-1] == record["slices"] == 6
    assert record["mask_ml"] == pytest.approx(mask.sum() * np.prod(SPACING) / 1000, rel=1e-4)
    assert json.loads((out / "record.json").read_text())["oracle"] is True
    assert len(record["played"]) == 6 and all(one["steps"] for one in record["played"])
    assert (out / "sheet.png").exists() and len(list((out / "slices").iterdir())) == 6


def test_without_a_truth_nothing_is_scored(scan, tmp_path):
    record = run_volume(scan[0], options(policy="centre-box"), tmp_path / "out")
    assert "scores" not in record and record["truth"] is None
    assert not any("dice" in str(one) for one in record["played"])
    with pytest.raises(MedSegError, match="give --mask TRUTH"):
        run_volume(scan[0], options(), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_dicom_in_and_a_segmentation_out(tmp_path):
    image, labels = piece()
    sources = write_series(tmp_path / "in", image, PatientName="Doe^Jane")
    truth = segmentation(sources, (labels == 5).astype(np.uint8), ["lung"])
    write(tmp_path / "truth.dcm", truth)
    arguments = ["run", str(tmp_path / "in"), "--target", "lung", "--policy", "oracle-box"]
    arguments += ["--backbone", "ellipse", "--mask", str(tmp_path / "truth.dcm")]
    arguments += ["--save", "seg,nifti", "--out", str(tmp_path / "out")]
    add_installed_commands(app)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "3D: dice 0." in done.output and "mask.dcm" in done.output
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    again, _ = read_series(tmp_path / "in", "lung", tmp_path / "out" / "mask.dcm")
    assert again.mask.sum() == record["mask_voxels"]
    for file in ("mask.dcm", "record.json"):
        assert b"Doe" not in (tmp_path / "out" / file).read_bytes()


def test_paths_that_are_scans_are_told_from_images(scan, tmp_path):
    image, _ = piece()
    write_series(tmp_path / "in", image)
    assert is_volume(scan[0]) and is_volume(tmp_path / "in")
    assert not is_volume(next((tmp_path / "in").iterdir()))
    assert not is_volume(tmp_path / "a.png") and not is_volume(tmp_path / "a.dcm")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"save": ("seg",)}, "needs a scan that is DICOM"),
        ({"save": ("stl",)}, "save must be of"),
        ({"label": "lung"}, "value of the target"),
        ({"axis": "axial", "channel": 3}, "no channel 3"),
    ],
)
def test_options_that_do_not_fit_are_refused(scan, tmp_path, changes, words):
    with pytest.raises(MedSegError, match=words):
        run_volume(scan[0], options(**changes), tmp_path / "out", scan[1])
    assert not (tmp_path / "out").exists()
