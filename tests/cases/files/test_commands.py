"""`medseg cases check | show | convert` as a user runs them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from defect_corpus.biomedparse_defects import FIRST
from PIL import Image
from typer.testing import CliRunner, Result

from medseg_gym.cases import Case, CaseError, load_cases
from medseg_gym.cases.check import check_cases
from medseg_gym.cases.contact_sheet import TILE, _tile, draw_sheet, spread
from medseg_gym.cli.main import app
from medseg_gym.display.palette import TRUTH_RGB


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["cases", *map(str, arguments)])


def test_check_prints_counts_and_says_that_all_is_well(data):
    done = run("check", f"biomedparse:{data}")
    assert done.exit_code == 0, done.output
    for words in ("lung in chest CT", "modalities: CT 4", "20 x 24 (4)", "no defects", "train"):
        assert words in done.stdout


def test_check_lists_every_defect_and_exits_with_one(data):
    (data / FIRST).write_bytes(b"")
    (data / "Set/test_mask/a_0_CT_chest_lung.png").unlink()
    (data / "Set/extra [1].txt").write_text("x")
    done = run("check", f"biomedparse:{data}")
    assert done.exit_code == 1
    assert f"  {FIRST}: the file is empty (0 bytes)" in done.stdout
    assert "Set/test.json: annotations[0]: mask_file" in done.stdout
    assert "extra [1].txt" in done.stdout and "2 defects" in done.stdout
    assert run("check", f"biomedparse:{data}?skip_bad=1").exit_code == 1, "skipping hides nothing"


def test_check_as_json_is_nothing_but_json(data):
    (data / FIRST).write_bytes(b"")
    done = run("check", f"biomedparse:{data}", "--json")
    report = json.loads(done.stdout)
    assert done.exit_code == 1 and report["ok"] is False and report["cases"] == 3
    assert report["splits"]["train"] == {
        "cases": 2,
        "groups": 2,
        "empty_masks": 0,
        "flat_images": 0,
        "not_read": 0,
    }
    (defect,) = report["defects"]
    assert defect["path"] == FIRST and defect["key"] == "Set/train/a_0_CT_chest_lung.png"
    assert report["sizes"] == [{"size": [20, 24], "cases": 3}] and report["modalities"] == {"CT": 3}
    assert report["targets"][0]["area_percent"] == [pytest.approx(100 * 80 / 480)] * 3


def test_empty_masks_and_flat_images_are_counted(data):
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(
        data / "Set/train_mask/a_0_CT_chest_lung.png"
    )
    Image.fromarray(np.full((20, 24), 7, np.uint8)).save(data / "Set/train/a_1_CT_chest.png")
    report = check_cases(f"biomedparse:{data}")
    assert report.splits()["train"]["empty_masks"] == 1
    assert report.splits()["train"]["flat_images"] == 1
    assert report.areas()["empty"] == 1 and report.areas()["5 to 20 %"] == 3
    assert report.targets()[0]["empty_masks"] == 1 and not report.bad


def test_check_reads_what_is_no_file_up_to_a_limit():
    done = run("check", "phantoms:fundus", "--limit", 3, "--json")
    report = json.loads(done.stdout)
    assert done.exit_code == 0 and report["cases"] == report["synthetic"] == 9
    assert report["splits"]["val"]["not_read"] == 99_997
    assert "(synthetic)" in run("check", "phantoms:fundus", "--limit", 2).stdout


@pytest.mark.parametrize("spec", ["biomedparse:/nowhere", "nothing", "folder:", "parquet:/x?y=1"])
def test_a_spec_that_cannot_be_used_raises(spec):
    done = run("check", spec)
    assert isinstance(done.exception, CaseError)


def test_nothing_there_is_not_all_well(tmp_path):
    done = run("check", f"biomedparse:{tmp_path}")
    assert isinstance(done.exception, CaseError) and "there is no case" in str(done.exception)


def test_what_was_left_alone_is_said_where_nothing_is_there(tmp_path):
    (tmp_path / "Set").mkdir()
    (tmp_path / "Set" / "test_absent.json").write_text('{"images": [], "annotations": []}')
    done = run("check", f"biomedparse:{tmp_path}")
    assert isinstance(done.exception, CaseError)
    assert "there is no case" in str(done.exception)
    assert "test_absent.json" in str(done.exception)


def test_show_draws_a_sheet(data, tmp_path):
    out = tmp_path / "sheets" / "one.png"
    done = run("show", f"biomedparse:{data}", "-n", 2, "--out", out)
    assert done.exit_code == 0 and f"wrote {out}" in done.stdout
    sheet = np.asarray(Image.open(out))
    assert sheet.shape[1] > 2 * TILE > sheet.shape[0]
    assert (sheet == TRUTH_RGB).all(axis=-1).sum() > 500, "outlines"


def test_show_names_cases_that_cannot_be_read(data, tmp_path):
    (data / FIRST).write_bytes(b"")
    done = run("show", f"biomedparse:{data}", "--out", tmp_path / "x.png")
    assert done.exit_code == 1 and FIRST in done.stdout and (tmp_path / "x.png").exists()
    done = run("show", f"biomedparse:{data}", "--skip-bad", "--out", tmp_path / "y.png")
    assert done.exit_code == 0


def test_a_sheet_shows_odd_sizes_and_empty_masks(tmp_path):
    from medseg_gym.cases import Case, CaseList

    sizes = [(1, 1), (3, 400), (400, 3), (50, 50)]
    cases = [
        Case(f"{h}x{w} 病", np.zeros((h, w, 3), np.uint8), np.zeros((h, w), bool), "x" * 90)
        for h, w in sizes
    ]
    path, errors = draw_sheet(CaseList(cases), 9, tmp_path / "odd.png")
    assert path.exists() and not errors


def test_a_sheet_shows_images_as_wide_and_high_as_they_are():
    case = load_cases("samples", "test")[0]
    squashed = Case("k", case.image[::4].copy(), case.mask[::4].copy(), "mass", spacing=(4.0, 1.0))
    tile = np.asarray(_tile(squashed))[:TILE]
    assert (tile != 238).any(axis=(1, 2)).all(), "a quarter of the rows, each four times as high"


def test_cases_of_a_sheet_are_spread_evenly():
    assert spread(100, 3) == [0, 50, 99] or spread(100, 3) == [0, 49, 99]
    assert spread(2, 16) == [0, 1] and spread(9, 1) == [0]
    assert len(set(spread(1000, 16))) == 16


def test_convert_refuses_defects_unless_they_are_skipped(data, tmp_path):
    (data / FIRST).write_bytes(b"")
    done = run("convert", f"biomedparse:{data}", "--to", "parquet", tmp_path / "out")
    assert isinstance(done.exception, CaseError) and FIRST in str(done.exception)
    done = run("convert", f"biomedparse:{data}", "--to", "parquet", tmp_path / "out2", "--skip-bad")
    assert done.exit_code == 0, done.output
    assert "wrote train 2, test 1 cases" in done.stdout
    assert len(load_cases(f"parquet:{tmp_path / 'out2'}", "train")) == 2


def test_convert_goes_on_after_the_file_was_repaired(data, tmp_path):
    sound = (data / "Set/train/a_2_CT_chest.png").read_bytes()
    (data / "Set/train/a_2_CT_chest.png").write_bytes(b"")
    arguments = ("convert", f"biomedparse:{data}", "--to", "biomedparse", tmp_path / "out")
    assert isinstance(run(*arguments).exception, CaseError)
    (data / "Set/train/a_2_CT_chest.png").write_bytes(sound)
    assert run(*arguments).exit_code == 0
    assert len(load_cases(f"biomedparse:{tmp_path / 'out'}", "train")) == 3


def test_skipping_is_for_files_alone(tmp_path):
    done = run("show", "samples", "--skip-bad", "--out", tmp_path / "x.png")
    assert isinstance(done.exception, CaseError) and "files on disk" in str(done.exception)
