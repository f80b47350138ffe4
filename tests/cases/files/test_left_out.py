"""Left-out data is counted and reported by checks, errors, sources and their wrappers."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner
from volume_writing import save, save_pair

from medseg_gym.cases import CaseError, CaseList, CaseSource, left_out_note, load_cases
from medseg_gym.cases.check import check_cases
from medseg_gym.cases.derived.pool import case_pool
from medseg_gym.cases.files import Defect, index_dataset
from medseg_gym.cases.files.counts import Counts
from medseg_gym.cases.folder import FolderFormat
from medseg_gym.cases.nifti import NiftiFormat
from medseg_gym.cli.main import app

SMALL = "targets on slices with under 20 pixels (min_area= changes that)"
EMPTY = "slices without a label"
GREY = np.arange(1536, dtype=np.int16).reshape(2, 24, 32)


def lesions(*areas: int) -> np.ndarray:
    """A lesion of so many pixels on each slice, (D, 24, 32)."""
    labels = np.zeros((len(areas), 24, 32), np.uint8)
    for plane, area in zip(labels, areas, strict=True):
        plane.ravel()[:area] = 1
    return labels


def data_set(root: Path, *areas: int) -> str:
    image = np.random.default_rng(0).integers(0, 200, (len(areas), 24, 32)).astype(np.int16)
    save_pair(root, image=image, labels=lesions(*areas))
    return f"nifti:{root}"


def split_of(spec: str) -> str:
    """The only split that a data set of one volume has."""
    (split,) = (s for s, counts in check_cases(spec).splits().items() if counts["cases"])
    return split


def test_small_targets_and_empty_slices_are_counted(tmp_path):
    spec = data_set(tmp_path, 36, 12, 0, 19, 20)
    report = check_cases(spec)
    assert len(report.seen) == 2 and not report.bad
    assert report.left_out == {SMALL: 2, EMPTY: 1}
    note = next(n for n in report.notes if n.reason == SMALL)
    assert note.left_out == 2 and "2 left out" in note.cause
    assert note.place == "labelsTr/case_001.nii.gz, slice 1"
    assert check_cases(f"{spec}?min_area=13").left_out == {
        "targets on slices with under 13 pixels (min_area= changes that)": 1,
        EMPTY: 1,
    }
    assert check_cases(f"{spec}?min_area=1").left_out == {EMPTY: 1}
    assert check_cases(f"{spec}?min_area=0").left_out == {EMPTY: 1}


def test_of_several_volumes_the_counts_add_up(tmp_path):
    data_set(tmp_path, 36, 12)
    for case in ("b", "c"):
        save_pair(tmp_path, case, labels=lesions(3, 40), image=GREY)
    save(tmp_path / "imagesTs/d.nii.gz", lesions(9, 9))
    report = check_cases(f"nifti:{tmp_path}")
    assert report.left_out == {"images without labels": 1, SMALL: 3}
    assert sum(n.reason == SMALL for n in report.notes) == 1, "one note, not one a file"


def test_an_empty_source_says_what_was_left_out(tmp_path):
    spec = data_set(tmp_path, 12, 0)
    for split in ("train", "test"):
        with pytest.raises(CaseError, match=r"there is no case .*under 20 pixels \(min_area="):
            load_cases(spec, split)
    done = CliRunner().invoke(app, ["cases", "check", spec])
    assert isinstance(done.exception, CaseError) and f"{SMALL}: 1" in str(done.exception)
    assert f"{EMPTY}: 1" in str(done.exception)
    save_pair(tmp_path, labels=lesions(0, 0), image=GREY)
    with pytest.raises(CaseError, match="label files without a label above 0: 1"):
        load_cases(spec, "train")


def test_an_empty_split_says_it_too(tmp_path):
    spec = data_set(tmp_path, 40, 12)
    other = next(s for s in ("train", "val", "test") if s != split_of(spec))
    with pytest.raises(CaseError, match=rf"no case in split '{other}'.*under 20 pixels"):
        load_cases(spec, other)


def test_sources_and_what_is_made_of_them_carry_the_counts(tmp_path):
    spec = data_set(tmp_path, 36, 40, 12, 0)
    split = split_of(spec)
    source = load_cases(spec, split)
    counts = {SMALL: 1, EMPTY: 1}
    assert source.left_out == counts
    assert pickle.loads(pickle.dumps(source)).left_out == counts
    assert load_cases(f"pool:1:{spec}", split).left_out == counts
    assert case_pool(source, 99).left_out == counts
    again = CaseList(list(source), left_out=source.left_out)
    assert pickle.loads(pickle.dumps(again)).left_out == counts
    assert check_cases(f"pool:1:{spec}").left_out == counts
    assert CaseList(list(source)).left_out == {} == load_cases("samples", "test").left_out

    class Own(CaseSource):
        keys, targets = (), ()

        def __getitem__(self, index):
            raise IndexError

    assert Own().left_out == {}


def test_environments_have_them(tmp_path):
    import gymnasium as gym

    spec = data_set(tmp_path, 36, 12)
    envs = gym.make_vec("MedSeg-v0", 2, cases=spec, split=split_of(spec), backbone="ellipse")
    assert envs.unwrapped.source.left_out == {SMALL: 1}
    envs.close()


def test_notes_of_any_reader_are_added_up(tmp_path, monkeypatch):
    def index(self, file_cache):
        counts = Counts()
        for file, place in (("a.dcm", "frame 1"), ("a.dcm", "frame 2"), ("b.dcm", "frame 7")):
            counts.add(file, "frames without a label", place, left_out=True)
        counts.add("c.dcm", "frames without a label", "", left_out=True, count=0)
        counts.add("a.dcm", "something odd", "frame 1")
        yield from counts.notes()

    monkeypatch.setattr(FolderFormat, "index", index)
    data = index_dataset(FolderFormat, f"{tmp_path}?target=x")
    assert data.left_out == {"frames without a label": 3}
    assert [str(d) for d in data.defects] == [
        "a.dcm: frame 1: frames without a label: 2 left out, the first here",
        "b.dcm: frame 7: frames without a label: 1 left out",
        "a.dcm: frame 1: something odd",
    ]
    assert not data.bad
    with pytest.raises(
        CaseError, match=r"no case.*; left out: frames without a label: 3; the first of 1 no"
    ):
        data.require_usable()


def test_skipped_defects_are_left_out(tmp_path):
    data_set(tmp_path, 36, 40)
    image = np.random.default_rng(1).integers(0, 200, (2, 24, 32)).astype(np.int16)
    image[1] = 7
    save_pair(tmp_path, "b", image=image, labels=lesions(50, 50))
    data = index_dataset(NiftiFormat, f"{tmp_path}?skip_bad=1")
    assert data.left_out == {"defects (skip_bad=1 leaves out what has them)": 1}


def test_a_defect_survives_json():
    defect = Defect.counting("a", "frames", 2, "slice 1")
    assert Defect(**json.loads(json.dumps(defect.as_dict()))) == defect


def test_the_commands_print_the_counts(tmp_path):
    spec = data_set(tmp_path / "data", 36, 12, 5)
    run = CliRunner()
    shown = run.invoke(app, ["cases", "check", spec]).stdout
    assert f"left out\n  {SMALL}: 2\n" in shown and "no defects" in shown
    assert "nothing is lost" not in shown
    report = json.loads(run.invoke(app, ["cases", "check", spec, "--json"]).stdout)
    assert report["left_out"] == {SMALL: 2} and report["notes"][0]["left_out"] == 2
    sentence = f"Left out of the cases, all splits together: {SMALL}: 2."
    assert sentence in run.invoke(app, ["cases", "list", spec]).stdout
    out = str(tmp_path / "out")
    done = run.invoke(app, ["cases", "convert", spec, out, "--to", "biomedparse"])
    assert done.exit_code == 0 and sentence in done.stdout


def test_nothing_left_out_is_not_mentioned():
    assert left_out_note({}) == ""
    assert "eft out" not in CliRunner().invoke(app, ["cases", "list", "samples"]).stdout
