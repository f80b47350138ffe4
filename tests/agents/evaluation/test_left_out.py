"""Tables say below them what the reader of the cases left out."""

from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pytest
from medseg_agents import policies
from medseg_agents.evaluation.comparison import compare
from medseg_agents.evaluation.options import CompareOptions
from rich.console import Console

from medseg_gym.cases import Case, CaseList
from medseg_gym.cases.case_source import register
from medseg_gym.cli.main import main
from medseg_gym.errors import MedSegError

REASON = "targets on slices with under 20 pixels (min_area= changes that)"
NOTE = f"Left out of the cases, all splits together: {REASON}: 4"


def _load(argument: str, split: str) -> CaseList:
    cases = []
    for number, side in enumerate((2, 8, 16)):
        image = np.full((32, 32, 3), 40 * number, np.uint8)
        mask = np.zeros((32, 32), bool)
        mask[:side, :side] = True
        image[mask] = 200
        cases.append(Case(f"case-{side}", image, mask, "lesion"))
    return CaseList(cases, name="lesions", split=split, left_out={REASON: 4} if argument else None)


register("left-out-lesions", _load)
CASES = "left-out-lesions:some"


def played(out, **options):
    compared = CompareOptions(
        cases=CASES, backbones=("ellipse",), num_envs=2, max_steps=2, **options
    )
    console = Console(record=True, width=60)
    result = compare([policies.make("oracle-box")], compared, out)
    result.show(console)
    result.write(out)
    return result, console.export_text()


def test_a_comparison_says_it_in_tables_and_files(tmp_path):
    _, text = played(tmp_path)
    assert NOTE in text
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["left_out"] == {REASON: 4} == results["settings"][0]["left_out"]
    with (tmp_path / "results.csv").open() as file:
        assert all(row["left_out"].startswith(NOTE) for row in csv.DictReader(file))
    (record,) = (tmp_path / "records").glob("*.jsonl")
    header = json.loads(record.read_text().splitlines()[0])
    assert header["settings"]["left_out"] == {REASON: 4}
    assert NOTE in played(tmp_path)[1], "a finished run still says it"


def test_the_area_that_a_comparison_asks_for_is_counted(tmp_path):
    result, text = played(tmp_path, min_area=0.05)
    (reason,) = set(result.left_out) - {REASON}
    assert result.left_out[reason] == 1 and "5.00%" in reason and "--min-area" in reason
    assert result.rows[0]["n"] == 2 and f"{reason}: 1." in text
    with pytest.raises(MedSegError, match="no case of 'lesions' covers"):
        played(tmp_path, min_area=0.9)


def test_nothing_left_out_leaves_no_trace(tmp_path):
    compared = CompareOptions(
        cases="left-out-lesions:", backbones=("ellipse",), num_envs=2, max_steps=2
    )
    console = Console(record=True)
    result = compare([policies.make("oracle-box")], compared, tmp_path)
    result.show(console)
    assert "eft out" not in console.export_text() and "left_out" not in result.settings[0]


def test_an_evaluation_says_it(tmp_path, monkeypatch, capsys):
    words = ["eval", "--cases", CASES, "--policy", "oracle-box", "--backbone", "ellipse"]
    monkeypatch.setattr(sys, "argv", ["medseg", *words, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert NOTE in capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["settings"]["left_out"] == {REASON: 4}
    assert NOTE in (tmp_path / "summary.csv").read_text()
