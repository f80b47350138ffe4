"""The share of stopping in a return: the best limit on calls, and the best end of each case."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medseg_agents.evaluation.case_record import CaseRecord
from medseg_agents.evaluation.evaluate import evaluate
from medseg_agents.evaluation.stopping import (
    over_start,
    returns_after,
    stopping_table,
    summarise_stopping,
)
from medseg_agents.evaluation.summary import as_tables, summarise, write_csv
from rich.console import Console

from medseg_gym import annotators
from medseg_gym.cli.main import main
from medseg_gym.policy import make_envs

MAX = 4


def record(dice, tools, group="a", penalty=0.01):
    paid = sum(tool != "stop" for tool in tools)
    return CaseRecord(
        case=f"{group}-{dice}",
        group=group,
        modality="CT",
        target="liver",
        synthetic=True,
        dice=tuple(dice),
        iou=tuple(dice),
        tools=tuple(tools),
        invalid=0,
        stopped="stop" in tools,
        episode_return=dice[-1] - dice[0] - penalty * paid,
        seconds=0.1,
        notes=(),
        batch=0,
        batch_size=1,
        area=0.1,
        hd95=None,
        nsd=0.5,
        unit="px",
        boundary_iou=0.5,
    )


@st.composite
def episodes(draw):
    turns = draw(st.integers(1, MAX))
    score = st.floats(0, 1, allow_nan=False)
    dice = draw(st.lists(score, min_size=turns + 1, max_size=turns + 1))
    tools = [draw(st.sampled_from(["box", "positive_point", ""])) for _ in range(turns)]
    if draw(st.booleans()):
        tools[-1], dice[-1] = "stop", dice[-2]
    return record(dice, tools)


def test_worked_out_by_hand():
    good = record((0.0, 0.5, 0.8, 0.8), ("box", "positive_point", "stop"))
    spoilt = record((0.0, 0.6, 0.4, 0.3, 0.3), ("box", "undo", "", "box"))
    table = returns_after([good, spoilt], 0.1, MAX)
    np.testing.assert_allclose(table[0], [0.0, 0.4, 0.6, 0.6, 0.6])
    np.testing.assert_allclose(table[1], [0.0, 0.5, 0.2, 0.0, -0.1], atol=1e-12)
    (line,) = summarise_stopping([good, spoilt], MAX, [0.1])
    assert line["best_limit"] == 1 and line["best_limit_return"] == pytest.approx(0.45)
    assert line["episode_return"] == pytest.approx(0.25)
    assert line["best_stop_return"] == pytest.approx((0.6 + 0.5) / 2)
    assert line["episode_return_interval"] is None  # one group alone


def test_where_the_target_is_absent_the_best_is_to_do_nothing():
    (line,) = summarise_stopping([record((1.0, 0.0, 0.0), ("box", "stop"))], MAX, [0.01])
    assert line["best_limit"] == 0 and line["best_stop_return"] == 0
    assert line["episode_return"] == pytest.approx(-1.01)


@settings(deadline=None)
@given(st.lists(episodes(), min_size=1, max_size=6), st.floats(0, 0.2))
def test_nobody_beats_the_best_stops(played, cost):
    (line,) = summarise_stopping(played, MAX, [cost])
    tolerance = 1e-9
    assert line["best_stop_return"] >= line["best_limit_return"] - tolerance
    assert line["best_limit_return"] >= line["episode_return"] - tolerance
    assert line["best_limit_return"] == pytest.approx(max(line["limited_returns"]))
    # With room for all steps the last limit is the policy itself.
    assert line["limited_returns"][-1] == pytest.approx(line["episode_return"])


def test_training_that_only_taught_to_stop_gains_nothing_over_the_limited_start():
    groups = "abcdefgh"
    start = [record((0.0, 0.7, 0.6, 0.5), ("box",) * 3, group) for group in groups]
    stops = [record((0.0, 0.7, 0.7), ("box", "stop"), group) for group in groups]
    sees = [record((0.0, 0.8, 0.8), ("box", "stop"), group) for group in groups]
    (line,) = over_start([stops, stops], [start], MAX, [0.01])
    assert line["start_limits"] == [1] and line["start"] == pytest.approx(0.47)
    assert line["episode_return"] - line["start"] == pytest.approx(0.22)
    assert line["over_limited"] == pytest.approx(0)
    (line,) = over_start([sees], [start], MAX, [0.01])
    assert line["over_limited"] == pytest.approx(0.1)
    assert line["over_limited_interval"] == pytest.approx((0.1, 0.1))
    (line,) = over_start([stops, sees], [start], MAX, [0.01])
    low, high = line["over_limited_interval"]
    assert low < 0 < high  # two seeds that differ prove nothing
    (line,) = over_start([stops, sees], [stops, start], MAX, [0.01])
    assert line["start_limits"] == [1, 1] and line["over_limited"] == pytest.approx(0.05)
    assert line["start"] == pytest.approx((0.69 + 0.47) / 2)


@settings(deadline=None)
@given(episodes())
def test_at_the_price_of_the_default_reward_it_is_the_return_of_the_episode(played):
    table = returns_after([played], 0.01, MAX)
    assert table[0, -1] == pytest.approx(played.episode_return)


@pytest.mark.parametrize("name", ["random", "oracle-click"])
def test_an_episode_that_really_ends_there_returns_that(name, small_cases):
    """A shorter limit plays the same first steps: the read-off is what playing gives."""

    def play(steps):
        envs = make_envs(2, cases=small_cases, backbone="ellipse", max_steps=steps)
        return evaluate(envs, annotators.make(name, envs.codec))

    table = returns_after(play(MAX), 0.01, MAX)
    for steps in (1, 2, 3):
        played = [one.episode_return for one in play(steps)]
        np.testing.assert_allclose(table[:, steps], played, atol=1e-6)


def test_tables_and_files_have_it(tmp_path):
    played = [record((0.0, 0.5, 0.8), ("box", "box"), group) for group in "abcdef"]
    row = summarise(played, MAX, (), (0.01, 0.2), backbone="b", policy="p", subset="all")
    tables = as_tables([row], "t", MAX)
    console = Console(width=140, record=True)
    console.print(tables[-1])
    text = console.export_text()
    assert "0.780 [0.780, 0.780]" in text and "0.780 (2)" in text and "0.400 (2)" in text
    write_csv([row], tmp_path / "rows.csv")
    (read,) = csv.DictReader((tmp_path / "rows.csv").read_text().splitlines())
    assert float(read["episode_return_at_0.2"]) == pytest.approx(0.4)
    assert read["best_limit_at_0.01"] == "2"
    assert float(read["episode_return_at_0.01_low"]) == pytest.approx(0.78)
    assert stopping_table([], "t").row_count == 0


def test_the_command_takes_prices(tmp_path, monkeypatch, capsys):
    words = [
        *("compare", "--cases", "phantoms", "--limit", "6", "--policies", "random"),
        *("--backbones", "ellipse", "--call-costs", "0,0.05", "--out", str(tmp_path / "a")),
    ]
    monkeypatch.setattr("sys.argv", ["medseg", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    lines = json.loads((tmp_path / "a" / "results.json").read_text())["rows"][0]["stopping"]
    assert [line["call_cost"] for line in lines] == [0, 0.05]
    capsys.readouterr()
    words[words.index("0,0.05")] = "-0.1,0.05"
    monkeypatch.setattr("sys.argv", ["medseg", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code and "call_costs must be at least 0" in capsys.readouterr().err
