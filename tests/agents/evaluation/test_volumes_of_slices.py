"""Tables on slices of volumes: volumes put together again, scored in 3D, written, counted."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from medseg_agents.evaluation.options import EvalOptions
from medseg_agents.evaluation.protocols.interactive_3d.scores import COLUMNS
from medseg_agents.evaluation.run import run_evaluation
from medseg_agents.evaluation.volumes.packed_masks import pack_mask, unpack_mask
from medseg_agents.evaluation.volumes.summary import summarise_volumes
from PIL import Image

from medseg_gym.cases import load_cases
from medseg_gym.cases.volume_source import load_volumes
from medseg_gym.cli.main import main
from medseg_gym.episodes import metrics
from medseg_gym.statistics import bootstrap_interval
from tests.cases.files.dicom_writing import segmentation, write, write_series
from tests.cases.files.volume_writing import SPACING, piece, write_patients

PATIENTS = 6
NAMES = "1:right lung,2:left lung"

GIVES_UP = """
from medseg_gym.annotators import make
from medseg_gym.errors import CaseFailed


class GivesUp:
    name, sees_truth = "gives-up", True

    def __init__(self, codec, word=""):
        self.expert, self.word = make("oracle-box", codec), word

    def reset(self, slots, generators):
        self.expert.reset(slots, generators)

    def use_engine(self, engine):
        pass

    def act(self, observations, episodes):
        actions = list(self.expert.act(observations, episodes))
        for slot, episode in enumerate(episodes):
            if self.word and episode is not None and self.word in episode.case.key:
                actions[slot] = CaseFailed("no answer")
        return actions
"""


def medseg(monkeypatch, *words) -> None:
    """Run the command as a user does; it must end well."""
    monkeypatch.setattr(sys, "argv", ["medseg", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Six patients of eight slices with two targets; the last one's axes run another way."""
    root = tmp_path_factory.mktemp("nifti")
    write_patients(root, PATIENTS)
    return root


def spec(folder: Path, query: str = "") -> str:
    return f"nifti:{folder}?labels={NAMES}&window=lung&splits=0,0,100{query}"


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def evaluated(folder, tmp_path_factory) -> tuple[Path, str]:
    """A run with masks, and what it printed."""
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        words = ["--policy", "oracle-box", "--backbone", "ellipse", "--save-masks"]
        medseg(patch, "eval", "--cases", spec(folder), *words, "--out", out)
    return out, ""


def test_a_mask_survives_being_text():
    mask = np.random.default_rng(0).random((5, 7)) > 0.5
    assert (unpack_mask(pack_mask(mask)) == mask).all()


def test_volumes_are_scored_as_their_mask_files_say(evaluated, folder):
    out, _ = evaluated
    lines = {line["volume"]: line for line in rows_of(out / "volumes.csv")}
    files = json.loads((out / "masks" / "masks.json").read_text())["files"]
    assert len(lines) == len(files) == 2 * PATIENTS
    for volume, (name,) in files.items():
        line = lines[volume]
        patient = volume.split("/")[1]
        written = nibabel.load(out / "masks" / name)
        image = nibabel.load(folder / "imagesTr" / patient)
        labels = nibabel.load(folder / "labelsTr" / patient)
        assert np.allclose(written.affine, image.affine) and written.shape == image.shape
        truth = np.asarray(labels.dataobj) == (1 if "right" in volume else 2)
        mask = np.asarray(written.dataobj) > 0
        assert float(line["volume_dice"]) == pytest.approx(metrics.dice(mask, truth), abs=1e-9)
        zooms = tuple(float(z) for z in image.header.get_zooms())
        scores = metrics.volume_scores(mask, truth, zooms)
        for name in ("hd95", "nsd_1mm", "nsd_2mm"):
            assert float(line[f"volume_{name}"]) == pytest.approx(getattr(scores, name), rel=1e-5)
        litres = (mask.sum() - truth.sum()) * np.prod(SPACING) / 1000
        assert float(line["volume_error_ml"]) == pytest.approx(litres, rel=1e-4)


def test_rows_are_means_of_volumes_with_intervals_by_patient(evaluated):
    out, _ = evaluated
    summary = json.loads((out / "summary.json").read_text())
    whole, right, left = summary["volume_rows"]
    assert [whole["subset"], right["subset"], left["subset"]] == ["all", "right lung", "left lung"]
    assert (whole["volumes"], whole["groups"], right["volumes"]) == (12, 6, 6)
    dice = [volume["volume_dice"] for volume in summary["volumes"]]
    patients = [volume["group"] for volume in summary["volumes"]]
    assert whole["volume_dice"] == pytest.approx(np.mean(dice))
    assert whole["volume_dice_interval"] == list(bootstrap_interval(dice, patients))
    assert whole["volume_hd95_n"] == 12 and whole["volume_hd95_interval"] is not None
    assert summary["rows"][0]["n"] == sum(volume["played"] for volume in summary["volumes"])
    flat = rows_of(out / "summary_volumes.csv")
    assert float(flat[0]["volume_dice_low"]) == whole["volume_dice_interval"][0]
    assert flat[0]["left_out"] == rows_of(out / "summary.csv")[0]["left_out"] != ""


def test_slices_that_were_not_played_are_counted(folder, tmp_path, monkeypatch, capsys):
    words = ["--policy", "oracle-box", "--backbone", "ellipse", "--out", tmp_path]
    medseg(monkeypatch, "eval", "--cases", spec(folder, "&min_area=60"), *words)
    printed = capsys.readouterr().out
    truth = [volume.mask for volume in load_volumes(spec(folder), "test")]
    areas = np.concatenate([mask.sum(axis=(1, 2)) for mask in truth])
    empty, small = int((areas == 0).sum()), int(((areas > 0) & (areas < 60)).sum())
    assert small
    note = f"{empty + small} of {areas.size} slices were not played and count as empty "
    assert f"{note}({empty} without the target, {small} with it)" in printed
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert any(text.startswith(note) for text in summary["volume_rows"][0]["notes"])
    assert sum(volume["unplayed_target"] for volume in summary["volumes"]) == small


def test_our_metrics_have_no_name_of_the_protocol(evaluated):
    out, _ = evaluated
    theirs = {name.lower() for name in COLUMNS}
    for name in ("volumes.csv", "summary_volumes.csv", "summary.csv"):
        assert not theirs & {column.lower() for column in rows_of(out / name)[0]}


class Killed(Exception):
    pass


def test_a_killed_run_goes_on_and_gives_the_same(evaluated, folder, tmp_path, monkeypatch):
    out, _ = evaluated
    options = EvalOptions(
        cases=spec(folder), policy="oracle-box", backbone="ellipse", save_masks=True
    )
    seen = []

    def kill(batch):
        seen.append(batch)
        if len(seen) == 3:
            raise Killed

    with pytest.raises(Killed):
        run_evaluation(options, tmp_path, on_batch=kill)
    done = json.loads((tmp_path / "masks" / "masks.json").read_text())["files"]
    early = {name: (tmp_path / "masks" / name).stat().st_mtime_ns for (name,) in done.values()}
    assert 0 < len(early) < 2 * PATIENTS, "what was complete is written"
    words = ["--policy", "oracle-box", "--backbone", "ellipse", "--save-masks"]
    medseg(monkeypatch, "eval", "--cases", spec(folder), *words, "--out", tmp_path)
    for file in sorted((out / "masks").iterdir()):
        assert (tmp_path / "masks" / file.name).read_bytes() == file.read_bytes()
    for name, written in early.items():
        assert (tmp_path / "masks" / name).stat().st_mtime_ns == written, "and not written again"
    aside = ("seconds",)
    for one, other in zip(
        rows_of(out / "volumes.csv"), rows_of(tmp_path / "volumes.csv"), strict=True
    ):
        assert {k: v for k, v in one.items() if k not in aside} == {
            k: v for k, v in other.items() if k not in aside
        }


def test_a_volume_with_a_failed_slice_has_no_score_in_any_row(folder, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(GIVES_UP)
    policies = f"oracle-box,{tmp_path}/mine.py:GivesUp?word=p1.nii.gz/z003/left"
    words = ["--policies", policies, "--backbones", "ellipse", "--by", "target"]
    out = tmp_path / "out"
    medseg(monkeypatch, "compare", "--cases", spec(folder), *words, "--out", out, "--save-masks")
    results = json.loads((out / "results.json").read_text())
    for policy in ("oracle-box", "gives-up"):
        rows = [row for row in results["volume_rows"] if row["policy"] == policy]
        assert [(row["subset"], row["volumes"], row["unscored"]) for row in rows] == [
            ("all", 11, 1),
            ("right lung", 6, 0),
            ("left lung", 5, 1),
        ]
        assert "1 of 12 volumes without a score" in rows[0]["notes"]
        assert sum(row["policy"] == policy for row in rows_of(out / "volumes.csv")) == 11
    assert len(results["unscored"]) == 2 and "p1.nii.gz/left lung" in results["unscored"][0]
    written = sorted(len(list(run.glob("*.nii.gz"))) for run in (out / "masks").iterdir())
    assert written == [11, 12], "each policy has the masks of what it played"


def test_a_volume_that_the_limit_cuts_has_no_score(folder, tmp_path, monkeypatch, capsys):
    keys = load_cases(spec(folder), "test").keys
    words = ["--policy", "oracle-box", "--backbone", "ellipse", "--limit", 9, "--out", tmp_path]
    medseg(monkeypatch, "eval", "--cases", spec(folder), *words)
    source = load_cases(spec(folder), "test")
    whole = {source.place_of(key).volume for key in keys[:9]} - {
        source.place_of(key).volume for key in keys[9:]
    }
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {volume["volume"] for volume in summary["volumes"]} == whole
    assert "--limit left slices of it out" in capsys.readouterr().out


def test_phantom_volumes_are_played_slice_by_slice(tmp_path, monkeypatch):
    source = load_cases("phantoms-volume", "test")
    depth = source.volumes.depth(0)
    words = ["--policy", "oracle-box", "--backbone", "ellipse", "--limit", depth]
    words += ["--save-masks", "--save", "nifti,png,seg", "--out", tmp_path]
    medseg(monkeypatch, "eval", "--cases", "phantoms-volume", *words)
    summary = json.loads((tmp_path / "summary.json").read_text())
    (row,) = summary["volume_rows"]
    empty = sum(not plane.any() for plane in source.volumes[0].mask)
    assert f"{empty} of {depth} slices without the target" in summary["rows"][0]["notes"]
    assert row["volumes"] == 1 and {"oracle", "synthetic"} <= set(row["notes"])
    assert summary["volumes"][0]["played"] == depth and row["volume_dice_interval"] is None
    index = json.loads((tmp_path / "masks" / "masks.json").read_text())
    assert index["not_written"] == {"no SEG of a volume that is not DICOM": 1}
    (nifti, slices) = index["files"][source.volumes.keys[0]]
    written = nibabel.load(tmp_path / "masks" / nifti)
    assert nibabel.aff2axcodes(written.affine) == ("L", "P", "S")
    planes = np.stack(
        [np.asarray(Image.open(p)) for p in sorted((tmp_path / "masks" / slices).iterdir())]
    )
    assert ((np.asarray(written.dataobj) > 0) == (planes > 0).transpose(2, 1, 0)).all()


def test_images_that_are_no_slices_have_png_and_no_3d_rows(tmp_path, monkeypatch, capsys):
    words = ["--cases", "phantoms:fundus", "--limit", 3, "--policy", "oracle-box"]
    words += ["--backbone", "ellipse", "--out", tmp_path]
    medseg(monkeypatch, "eval", *words, "--save-masks")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert "volume_rows" not in summary and not (tmp_path / "volumes.csv").exists()
    assert "3D" not in capsys.readouterr().out
    files = json.loads((tmp_path / "masks" / "masks.json").read_text())["files"]
    source = load_cases("phantoms:fundus", "test")
    dice = json.loads((tmp_path / "results.json").read_text())
    for key in source.keys[:3]:
        mask = np.asarray(Image.open(tmp_path / "masks" / files[key][0])) > 0
        truth = source[source.index_of(key)].mask
        assert metrics.dice(mask, truth) == pytest.approx(dice[key]["dice"], abs=1e-6)
    before = (tmp_path / "records.jsonl").read_bytes()
    options = EvalOptions(cases="phantoms:fundus", limit=3, policy="oracle-box", backbone="ellipse")
    again = run_evaluation(options, tmp_path)  # records hold the masks in any case
    assert [record.case for record in again.records] == list(source.keys[:3])
    assert (tmp_path / "records.jsonl").read_bytes() == before


@pytest.mark.parametrize("keep", [False, True])
def test_nobodys_name_or_number_is_in_what_a_run_writes(
    tmp_path, monkeypatch, capsys, caplog, keep
):
    image, labels = piece(slice(10, 16), 4)
    for number in (1, 2):
        sources = write_series(
            tmp_path / "in" / str(number), image, series=number,
            PatientName="Doe^Jane", PatientID=f"Doe{number}", StudyDescription="of Doe",
        )  # fmt: skip
        truth = segmentation(sources, (labels == 5).astype(np.uint8), ["lung"], number=50 + number)
        write(tmp_path / "in" / f"seg{number}", truth)
    out, options = tmp_path / "out", f"window=lung&splits=0,0,100&keep_identifiers={int(keep)}"
    words = ["--policies", "oracle-box", "--backbones", "ellipse", "--save-masks", "--save"]
    words += ["nifti,seg", "--out", out, *(["--keep-identifiers"] if keep else [])]
    medseg(monkeypatch, "compare", "--cases", f"dicom:{tmp_path / 'in'}?{options}", *words)
    files = [file for file in out.rglob("*") if file.is_file()]
    assert sum(file.suffix == ".dcm" for file in files) == 2
    named = {file.suffix for file in files if b"Doe" in file.read_bytes()}
    assert named == ({".dcm", ".csv", ".json", ".jsonl"} if keep else set())
    assert not any("Doe" in str(file) for file in files)
    assert "Doe" not in capsys.readouterr().out and "Doe" not in caplog.text
    (row,) = json.loads((out / "results.json").read_text())["volume_rows"]
    assert (row["volumes"], row["groups"]) == (2, 2)


def test_a_row_without_a_volume_has_no_numbers():
    row = summarise_volumes([], [], policy="p")
    assert row["volume_dice"] is None and row["volume_dice_interval"] is None
