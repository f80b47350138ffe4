"""Calls and what they gain, by how well the first one went."""

from __future__ import annotations

import pytest
from medseg_agents import policies
from medseg_agents.evaluation.comparison import compare
from medseg_agents.evaluation.figures.calls_used import calls_by_difficulty, plot_calls_used
from medseg_agents.evaluation.options import CompareOptions


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    options = CompareOptions(cases="phantoms:abdomen", backbones=("ellipse",), limit=40)
    specs = [policies.make(name) for name in ("box-to-point?retries=0", "oracle-box", "stop")]
    compared = compare(specs, options, tmp_path_factory.mktemp("compared")).records
    return {policy: members for (_, policy), members in compared.items()}


def test_cases_are_divided_evenly_poorest_first(records):
    rows = calls_by_difficulty(records["box-to-point?retries=0"])
    assert [row["cases"] for row in rows] == [8] * 5
    first = [row["first"] for row in rows]
    assert first == sorted(first) and first[0] < first[-1]
    members = records["box-to-point?retries=0"]
    assert sum(row["calls"] for row in rows) / 5 == pytest.approx(
        sum(record.prompts for record in members) / len(members)
    )
    assert all(row["gain_interval"][0] <= row["gain"] <= row["gain_interval"][1] for row in rows)


def test_one_box_gains_nothing_more_and_stopping_calls_nothing(records):
    assert all(
        row["calls"] == 1 and row["gain"] == 0 for row in calls_by_difficulty(records["oracle-box"])
    )
    assert all(row["calls"] == 0 for row in calls_by_difficulty(records["stop"]))


def test_what_is_drawn_is_returned_and_few_cases_are_few_parts(records, tmp_path):
    few = {"oracle-box": records["oracle-box"][:3]}
    drawn = plot_calls_used(few, tmp_path / "calls.png", "three cases")
    assert len(drawn["oracle-box"]) == 3 and drawn["oracle-box"][0]["gain_interval"] is None
    assert (tmp_path / "calls.png").stat().st_size > 5000
