"""The benchmark of repairing: what counts as repaired, and its table."""

from __future__ import annotations

import json

import pytest

from benchmarks.policies.repairing import run, summarise
from medseg_gym.errors import MedSegError


def test_the_expert_repairs_all_and_whoever_stops_repairs_nothing(tmp_path, capsys):
    run("stop,oracle-click", "phantoms:fundus,chest?position=random", limit=24, out=tmp_path)
    lines = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["lines"]
    every = {line["policy"]: line for line in lines if line["kind"] == "all"}
    expert, stopped = every["oracle-click"], every["stop"]
    assert expert["repaired"] == 1.0 and stopped["repaired"] < 0.3
    assert expert["start"] == stopped["start"] == pytest.approx(stopped["dice"][2])
    assert expert["dice"][2] > expert["start"] + 0.2
    parts = [line for line in lines if line["policy"] == "stop" and line["kind"] != "all"]
    assert sum(line["cases"] for line in parts) == 24
    weighed = sum(line["cases"] * line["start"] for line in parts) / 24
    assert weighed == pytest.approx(stopped["start"])
    assert "repaired [95 %]" in capsys.readouterr().out


class Record:
    def __init__(self, *dice: float) -> None:
        self.dice, self.group = dice, str(dice)

    def dice_after(self, step: int) -> float:
        return self.dice[min(step, len(self.dice) - 1)]


def test_what_counts_is_the_mask_after_so_many_calls():
    expert = [Record(0.2, 0.5, 0.8, 0.9)] * 4
    ours = [
        Record(0.2, 0.86),  # stopped, close enough
        Record(0.2, 0.9, 0.9, 0.84),  # spoilt by the last call
        Record(0.2, 0.3, 0.4, 0.84, 0.99),  # too late
        Record(0.2, 0.3, 0.4, 0.851),
    ]
    (line, *rest) = summarise(ours, expert, ["half"] * 4, calls=3, within=0.05)
    assert line["repaired"] == 0.5 and line["interval"] is None
    assert [one["kind"] for one in rest] == ["half"]


@pytest.mark.parametrize("wrong", [{"calls": 0}, {"within": -0.1}, {"within": 1.0}])
def test_ranges(wrong, tmp_path):
    with pytest.raises(MedSegError, match="calls >= 1 and within"):
        run("stop", out=tmp_path, **wrong)
