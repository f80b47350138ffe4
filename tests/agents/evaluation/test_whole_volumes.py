"""Policies that play whole volumes, in one table with those that play slices."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from medseg_agents import policies
from medseg_agents.evaluation.comparison import compare
from medseg_agents.evaluation.options import CompareOptions, EvalOptions, RunOptions
from medseg_agents.evaluation.run import run_evaluation
from medseg_agents.evaluation.volume_run import run_volume
from medseg_agents.evaluation.volumes.packed_masks import pack_volume, unpack_volume
from rich.console import Console

from medseg_gym.cases.volume_source import load_volumes
from medseg_gym.cli.main import main
from medseg_gym.episodes import metrics
from medseg_gym.errors import MedSegError
from medseg_gym.statistics import bootstrap_interval
from tests.cases.files.volume_writing import piece, save, write_patients

PATIENTS = 5

MINE = """
from medseg_gym.annotators import make
from medseg_gym.errors import CaseFailed


class Mine:
    env_id, name, sees_truth = "MedSegVolume-v0", "mine", True

    def __init__(self, codec, word=""):
        self.expert, self.word = make("oracle-key-slice", codec), word

    def reset(self, slots, generators):
        self.expert.reset(slots, generators)

    def act(self, observations, episodes):
        actions = list(self.expert.act(observations, episodes))
        for slot, episode in enumerate(episodes):
            if self.word and episode is not None and self.word in episode.case.key:
                actions[slot] = CaseFailed("no answer")
        return actions


class Unsaid(Mine):
    env_id = ""
"""


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> str:
    """Five patients of eight slices with the right lung; the last one's axes run another way."""
    root = tmp_path_factory.mktemp("nifti")
    write_patients(root, PATIENTS)
    return f"nifti:{root}?labels=1:right lung,2:ignore&window=lung&splits=0,0,100"


@pytest.fixture(scope="module")
def mine(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("mine") / "mine.py"
    file.write_text(MINE)
    return f"{file}:Mine"


def evaluation(cases: str, policy: str, **changed) -> EvalOptions:
    options = {"backbone": "ellipse", "save_masks": True, "volume_envs": 2, **changed}
    return EvalOptions(cases=cases, policy=policy, **options)


def test_a_mask_of_a_volume_survives_being_text():
    mask = np.random.default_rng(0).random((3, 5, 7)) > 0.5
    assert (unpack_volume(pack_volume(mask), mask.shape) == mask).all()
    with pytest.raises(MedSegError, match="does not fit"):
        unpack_volume(pack_volume(mask), (3, 5, 8))


@pytest.fixture(scope="module")
def compared(cases, tmp_path_factory):
    """Slices and whole volumes in one table, as the command writes it."""
    out = tmp_path_factory.mktemp("out")
    words = ["--policies", "oracle-box,stop,oracle-key-slice-clicks,volume:stop"]
    words += ["--cases", cases, "--backbones", "ellipse", "--save-masks", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["medseg", "compare", *words, "--volume-steps", "4"])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return out, json.loads((out / "results.json").read_text())


def test_slices_and_whole_volumes_stand_in_one_table(compared):
    _, results = compared
    rows = {row["policy"]: row for row in results["volume_rows"]}
    assert {name: row["plays"] for name, row in rows.items()} == {
        "oracle-box": "slices",
        "stop": "slices",
        "oracle-key-slice-clicks": "volumes",
        "volume:stop": "volumes",
    }
    assert {row["policy"] for row in results["rows"]} == {"oracle-box", "stop"}
    for row in rows.values():
        assert (row["volumes"], row["groups"], row["unscored"]) == (PATIENTS, PATIENTS, 0)
    clicks, boxes = rows["oracle-key-slice-clicks"], rows["oracle-box"]
    assert (clicks["prompts"], clicks["turns"]) == (2, 4) and "oracle" in clicks["notes"]
    assert f"{PATIENTS} of {PATIENTS} volumes: all 4 steps were used" in clicks["notes"]
    lines = [one for one in results["volumes"] if one["policy"] == "oracle-key-slice-clicks"]
    dice, groups = [one["volume_dice"] for one in lines], [one["group"] for one in lines]
    assert clicks["volume_dice_interval"] == list(bootstrap_interval(dice, groups))
    assert [one["prompts_by_step"] for one in lines] == [[0, 1, 1, 2, 2]] * PATIENTS
    slices = sum(one["played"] for one in results["volumes"] if one["policy"] == "oracle-box")
    assert boxes["prompts"] * PATIENTS == slices and boxes["turns"] == 2 * boxes["prompts"]
    assert rows["volume:stop"]["volume_dice"] == rows["stop"]["volume_dice"] == 0
    assert rows["volume:stop"]["turns"] == 1 and rows["volume:stop"]["prompts"] == 0


def test_masks_of_whole_volumes_are_what_was_scored(compared, cases):
    out, results = compared
    dice = {
        one["volume"]: one["volume_dice"]
        for one in results["volumes"]
        if one["policy"] == "oracle-key-slice-clicks"
    }
    (run,) = (out / "masks").glob("*oracle-key-slice-clicks*")
    files = json.loads((run / "masks.json").read_text())["files"]
    for volume in load_volumes(cases, "test"):
        (name,) = files[volume.key]
        written = nibabel.load(run / name)
        assert np.allclose(written.affine, nibabel.load(volume.geometry.path).affine)
        truth = volume.geometry.stored(volume.mask)
        mask = np.asarray(written.dataobj) > 0
        assert dice[volume.key] == pytest.approx(metrics.dice(mask, truth), abs=1e-9)


class Killed(Exception):
    pass


def test_a_killed_run_keeps_the_masks_of_what_was_played(cases, mine, tmp_path):
    def kill(batch):
        raise Killed

    options = evaluation(cases, mine)
    with pytest.raises(Killed):
        run_evaluation(options, tmp_path / "killed", on_batch=kill)
    masks = tmp_path / "killed" / "masks"
    early = {file: file.stat().st_mtime_ns for file in masks.glob("*.nii.gz")}
    assert len(early) == 2
    again = run_evaluation(options, tmp_path / "killed")
    whole = run_evaluation(options, tmp_path / "whole")
    assert all(file.stat().st_mtime_ns == written for file, written in early.items())
    for file in sorted((tmp_path / "whole" / "masks").iterdir()):
        assert (masks / file.name).read_bytes() == file.read_bytes()
    for one, other in zip(again.volumes.records, whole.volumes.records, strict=True):
        assert one.volume_dice == other.volume_dice and one.dice_by_step == other.dice_by_step
    (masks / "masks.json").unlink()
    next(iter(early)).unlink()
    run_evaluation(options, tmp_path / "killed")
    assert len(list(masks.glob("*.nii.gz"))) == PATIENTS, "what is missing is written"


def test_a_volume_that_failed_has_no_score_in_any_row(cases, mine, tmp_path):
    names = ("oracle-box", f"{mine}?word=p1.nii.gz")
    options = CompareOptions(cases=cases, backbones=("ellipse",), policies=names)
    console = Console(record=True, width=200)
    comparison = compare([policies.make(name) for name in names], options, tmp_path)
    comparison.show(console)
    comparison.write(tmp_path)
    for row in comparison.volumes.rows:
        assert (row["volumes"], row["unscored"]) == (PATIENTS - 1, 1)
        assert f"1 of {PATIENTS} volumes without a score" in row["notes"]
    text = console.export_text()
    assert "p1.nii.gz/right lung: it failed, or a slice of it" in text and "no answer" in text


def test_a_table_of_whole_volumes_alone_has_no_rows_of_slices(mine, tmp_path, monkeypatch, capsys):
    words = ["--cases", "phantoms-volume", "--limit", "2", "--policies", f"middle-box,{mine}"]
    words += ["--backbones", "ellipse", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["medseg", "compare", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["rows"] == [] and not (tmp_path / "results.csv").exists()
    whole = [row for row in results["volume_rows"] if row["subset"] == "CT"]
    assert [(row["policy"], row["volumes"]) for row in whole] == [("middle-box", 2), ("mine", 2)]
    assert all("synthetic" in row["notes"] for row in whole)
    assert "results_volumes.csv" in capsys.readouterr().out
    assert [one["max_steps"] for one in results["settings"]] == [10, 10]
    assert results["settings"][0]["propagation"]["loosen"] > 0


def test_what_does_not_fit_is_refused(cases, mine, tmp_path):
    with pytest.raises(MedSegError, match="plays whole volumes, and 'samples' holds images"):
        run_evaluation(evaluation("samples", "middle-box"), tmp_path)
    with pytest.raises(MedSegError, match="plays whole volumes, and 'nifti"):
        run_evaluation(evaluation(f"{cases}&slices=top:2", "middle-box"), tmp_path)
    options = CompareOptions(cases=cases, backbones=("ellipse",), min_area=0.1)
    with pytest.raises(MedSegError, match="min_area leaves out slices"):
        compare([policies.make("middle-box")], options, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_scan_is_played_as_a_whole(tmp_path):
    image, labels = piece()
    scan, truth = save(tmp_path / "s.nii.gz", image), save(tmp_path / "l.nii.gz", labels)
    options = {"target": "lung", "backbone": "ellipse", "window": "lung", "label": "5"}
    chosen = RunOptions(policy="oracle-key-slice", **options)
    record = run_volume(scan, chosen, tmp_path / "out", truth)
    mask = np.asarray(nibabel.load(tmp_path / "out" / "mask.nii.gz").dataobj) > 0
    dice = metrics.dice(mask, np.asarray(nibabel.load(truth).dataobj) == 5)
    assert record["scores"]["dice"] == pytest.approx(dice) and record["plays"] == "volumes"
    (played,) = record["played"]
    assert [step["tool"] for step in played["steps"]] == ["box", "propagate", "stop"]
    assert '"slice"' in played["steps"][0]["call"] and played["steps"][0]["pixels"]
    assert played["dice"] == pytest.approx(dice) and (tmp_path / "out" / "sheet.png").exists()
    with pytest.raises(MedSegError, match="give --mask TRUTH"):
        run_volume(scan, chosen, tmp_path / "none")
    blind = run_volume(scan, RunOptions(policy="middle-box", **options), tmp_path / "blind")
    assert "scores" not in blind and "dice" not in str(blind["played"])


@pytest.mark.slow
def test_workers_give_the_same(cases, mine, tmp_path):
    alone = run_evaluation(evaluation(cases, mine), tmp_path / "one")
    shared = run_evaluation(evaluation(cases, mine, workers=2), tmp_path / "two")
    assert alone.settings == shared.settings
    for one, other in zip(alone.records, shared.records, strict=True):
        assert (one.case, one.dice, one.mask) == (other.case, other.dice, other.mask)


def test_names_say_what_they_play(mine, tmp_path):
    for name in ("oracle-key-slice", "middle-box?slices=9", "volume:random", mine):
        assert policies.make(name).plays_volumes, name
    for name in ("oracle-box", "random", "stop", "noisy-hybrid", mine.replace("Mine", "Unsaid")):
        assert not policies.make(name).plays_volumes, name
    assert policies.make("oracle-every-slice?slices=200&bins=64").view == {
        "slices": 200,
        "bins": 64,
    }
    assert policies.make("volume:middle-box").name == "middle-box"
    assert policies.make("volume:location-prior:phantoms-volume").plays_volumes
    assert policies.make("volume:" + mine.replace("Mine", "Unsaid")).plays_volumes
    assert policies.split(f"middle-box,oracle-key-slice?slices=9,volume:stop,{mine}") == [
        "middle-box",
        "oracle-key-slice?slices=9",
        "volume:stop",
        mine,
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("oracle-key-slices", "did you mean 'oracle-key-slice'"),
        ("volume:oracle-box", "unknown policy of volumes 'oracle-box'"),
        ("volume:", "names nothing"),
        ("middle-box?side=3", "no option 'side'.*slices"),
        ("middle-box?slices=x", "slices cannot be 'x'"),
        ("volume:location-prior:", "names no cases"),
    ],
)
def test_a_wrong_name_says_what_was_meant(text, message):
    with pytest.raises(MedSegError, match=message):
        policies.make(text)


def test_more_slices_than_cells_are_said(cases, tmp_path):
    options = evaluation(cases, "oracle-every-slice?slices=3", save_masks=False, limit=1)
    (record,) = run_evaluation(options, Path(tmp_path)).volumes.records
    assert any("more slices than actions can name" in note for note in record.grid_notes)
