"""`medseg compare --runs A B`: two runs that were played already, side by side."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg_gym.errors import MedSegError
from medseg_gym.statistics import bootstrap_interval

EVAL = ["--backbone", "ellipse", "--cases", "./cases.py:Squares"]


def records(folder: str) -> list[dict]:
    return [json.loads(line) for line in Path(folder, "records.jsonl").read_text().splitlines()[1:]]


@pytest.fixture
def runs(medseg):
    medseg("eval", "--policy", "bright:Bright", *EVAL, "--out", "a")
    medseg("eval", "--policy", "centre-box", *EVAL, "--out", "b", "--limit", "5")
    return medseg


def test_differences_are_paired_by_case(runs) -> None:
    printed = runs("compare", "--runs", "a", "b", "--out", "c")
    results = json.loads(Path("c/paired.json").read_text())
    (pair,) = results["pairs"]
    assert (pair["cases"], pair["only_first"], pair["only_second"]) == (5, 1, 0)
    assert "1 in the first run only" in printed and "Synthetic" in printed
    first = {one["case"]: one for one in records("a")}
    gains = [one["dice"][-1] - first[one["case"]]["dice"][-1] for one in records("b")]
    groups = [one["group"] for one in records("b")]
    row = next(row for row in results["rows"] if row["measure"] == "dice")
    assert row["difference"] == pytest.approx(np.mean(gains))
    assert row["difference_interval"] == pytest.approx(bootstrap_interval(gains, groups))
    assert row["higher"] + row["equal"] + row["lower"] == row["n"] == 5
    with Path("c/cases.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5
    for name in ("scatter.png", "differences.png"):
        assert np.asarray(Image.open(Path("c", name)).convert("RGB")).std() > 5


def test_the_second_run_meets_the_first_at_the_prices_that_are_given(runs):
    printed = runs("compare", "--runs", "a", "b", "--call-costs", "0.002,0.2", "--out", "c")
    lines = json.loads(Path("c/paired.json").read_text())["stopping"]
    assert [line["call_cost"] for line in lines] == [0.002, 0.2] and "0.002" in printed
    for line in lines:
        first = {one["case"]: one for one in records("a")}
        second = records("b")
        before = [ended(first[one["case"]], line["call_cost"]) for one in second]
        limited = max(np.mean(column) for column in zip(*before, strict=True))
        own = np.mean([ended(one, line["call_cost"])[-1] for one in second])
        assert line["start_limited"] == pytest.approx(limited)
        assert line["over_limited"] == pytest.approx(own - limited)
    with pytest.raises(MedSegError, match="call_costs must be at least 0 and below 1, got 2"):
        runs("compare", "--runs", "a", "b", "--call-costs", "2")


def ended(record, cost, longest=5):
    """Returns of an episode with at most so many calls, from 0 on, at a price of a call."""
    returns = []
    for calls in range(longest + 1):
        step = min(calls, len(record["tools"]))
        paid = sum(tool != "stop" for tool in record["tools"][:step])
        returns.append(record["dice"][step] - record["dice"][0] - cost * paid)
    return returns


def test_a_comparison_and_an_evaluation(runs) -> None:
    runs("compare", "--policies", "bright:Bright,stop", "--backbones", "ellipse",
         "--cases", "./cases.py:Squares", "--out", "d")  # fmt: skip
    runs("compare", "--runs", "a", "d", "--out", "c")
    results = json.loads(Path("c/paired.json").read_text())
    assert [pair["cases"] for pair in results["pairs"]] == [6, 6]
    same = next(row for row in results["rows"] if row["measure"] == "dice")
    assert same["difference"] == 0 and same["equal"] == 6  # the same policy, played again


def test_runs_without_cases_in_common_are_refused(runs) -> None:
    runs("eval", "--policy", "stop", "--backbone", "ellipse", "--limit", "2", "--out", "other")
    with pytest.raises(MedSegError, match="no case was played by both"):
        runs("compare", "--runs", "a", "other", "--out", "c")
    with pytest.raises(MedSegError, match=r"run nothing is not there: give the --out"):
        runs("compare", "--runs", "a", "nothing", "--out", "c")
    with pytest.raises(MedSegError, match="--policies does nothing with --runs"):
        runs("compare", "--runs", "a", "b", "--policies", "stop")


def test_settings_that_differ_are_said(runs) -> None:
    runs("eval", "--policy", "bright:Bright", *EVAL, "--max-steps", "3", "--reward",
         "rewarding:final_iou", "--out", "e")  # fmt: skip
    printed = runs("compare", "--runs", "a", "e", "--out", "c")
    differing = json.loads(Path("c/paired.json").read_text())["pairs"][0]["differing_settings"]
    assert differing["max_steps"] == [5, 3] and "returns are not compared" in printed


def test_another_case_of_the_same_key_is_refused(runs) -> None:
    file = Path("b/records.jsonl")
    lines = file.read_text().splitlines()
    changed = json.loads(lines[1]) | {"area": 0.5}
    file.write_text("\n".join([lines[0], json.dumps(changed), *lines[2:]]) + "\n")
    with pytest.raises(MedSegError, match="is another case in b"):
        runs("compare", "--runs", "a", "b", "--out", "c")


def test_whole_volumes_are_paired_by_their_keys(medseg) -> None:
    play = ["--cases", "phantoms-volume", "--limit", "2", "--volume-steps", "3", "--backbone",
            "ellipse"]  # fmt: skip
    for policy, out in (("oracle-key-slice", "a"), ("middle-box", "b"), ("stop", "slices")):
        limit = ["--limit", "1"] if out == "slices" else []
        medseg("eval", "--policy", policy, *play, *limit, "--out", out)
    printed = medseg("compare", "--runs", "a", "b", "--out", "c")
    row = json.loads(Path("c/paired.json").read_text())["rows"][0]
    gains = [b["dice"][-1] - a["dice"][-1] for a, b in zip(records("a"), records("b"), strict=True)]
    assert row["measure"] == "dice" and row["n"] == 2
    assert row["difference"] == pytest.approx(np.mean(gains)) and "3D Dice" in printed
    sheet = np.asarray(Image.open("c/differences.png").convert("RGB"))
    assert sheet.std() > 5 and len(sheet) > 400, "a row for each volume"
    with pytest.raises(MedSegError, match="played whole volumes, the other images or slices"):
        medseg("compare", "--runs", "a", "slices", "--out", "d")
