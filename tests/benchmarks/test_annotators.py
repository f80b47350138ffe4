"""The annotators benchmark runs, and its verdicts follow the intervals."""

from __future__ import annotations

import csv
import json

import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks.policies.annotators import compare, measure
from benchmarks.policies.annotators_report import verdict


def test_it_prints_and_writes_what_it_promises(tmp_path):
    app = Typer()
    app.command()(measure)
    arguments = (
        "--cases samples --policies oracle-box,sequential-click,box-to-point,hybrid,noisy-hybrid "
        "--backbone ellipse --limit 4 --num-envs 4 --max-steps 3 --timed-slots 3"
    )
    result = CliRunner().invoke(app, [*arguments.split(), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "does not" in result.output or "no interval" in result.output
    results = json.loads((tmp_path / "results.json").read_text())
    rows = {row["policy"]: row for row in results["rows"]}
    assert list(rows) == [
        "oracle-box",
        "sequential-click",
        "box-to-point",
        "hybrid",
        "noisy-hybrid",
    ]
    for row in rows.values():
        assert sum(row["lengths"]) == pytest.approx(1) and len(row["iou_after"]) == 4
        assert 0 <= row["accepted"] <= 1
    assert rows["oracle-box"]["looks"] is None and 1 <= rows["box-to-point"]["looks"] <= 4
    assert {row["against"] for row in results["differences"]} == {"oracle-box", "sequential-click"}
    assert {row["backbone"] for row in results["timings"]} == {"ellipse"}
    with (tmp_path / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5
    assert (tmp_path / "dice_by_step.png").stat().st_size > 1000
    assert (tmp_path / "lengths.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        ((0.01, 0.02), "beats it"),
        ((-0.01, 0.02), "does not beat it"),
        ((0.0, 0.0), "does not beat it"),
        ((-0.03, -0.02), "does worse"),
        (None, "3 groups: no interval"),
    ],
)
def test_the_verdict_follows_the_interval(interval, words):
    assert verdict({"intervals": [None, interval], "groups": 3}).startswith(words)


def test_differences_are_taken_case_by_case():
    class Record:
        def __init__(self, case, dice):
            self.case, self.group, self.dice = case, case, dice

        def dice_after(self, step):
            return self.dice[min(step, len(self.dice) - 1)]

    first = [Record(str(i), (0, 0.5 + 0.01 * i, 0.8)) for i in range(6)]
    second = [Record(str(i), (0, 0.4 + 0.01 * i)) for i in range(6)]
    actual = compare(first, second, max_steps=2)
    assert actual["means"][0] == pytest.approx(0.1)
    assert actual["intervals"][0] == pytest.approx((0.1, 0.1))
    assert actual["n"] == actual["groups"] == 6 and actual["means"][1] > actual["means"][0]
