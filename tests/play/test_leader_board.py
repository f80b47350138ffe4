"""The board compares players on cases that both have finished, and on nothing else."""

from __future__ import annotations

import json
import math

import pytest

from medseg_gym.play.games import Player
from medseg_gym.play.stores.leader_board import board, collect
from tests.play.conftest import scattered


def row(policy: str, case: int, dice: float, rollout: int = 0, **extra):
    options = {"max_steps": extra.pop("max_steps", 5), "exam": extra.pop("exam", False)}
    return {
        "policy": policy,
        "case": f"case-{case}",
        "cases": "samples",
        "split": extra.pop("split", "test"),
        "group": f"patient {case}",
        "rollout": rollout,
        "dice": dice,
        "backbone": extra.pop("backbone", "pocket"),
        "options": json.dumps(options),
        "synthetic": False,
        "sees_truth": False,
        "depth": None,
        **extra,
    }


ANNA, BOT = Player("person:Anna", False), Player("bot", False)


def test_the_first_finished_try_counts_and_nothing_from_another_game() -> None:
    rows = [
        row("person:Anna", 0, 0.9, 1),
        row("person:Anna", 0, 0.5, 0),
        row("person:Anna", 0, 1.0, 2),
        row("person:Anna", 1, 0.7, exam=True),
        row("person:Anna", 2, 0.9, backbone="medsam2"),
        row("person:Anna", 3, 0.9, max_steps=7),
        row("person:Anna", 4, math.nan),
    ]
    result = collect(rows, "pocket", 5)
    assert list(result[ANNA].dice.values()) == [0.5] and result[ANNA].tries == 3
    assert list(result[Player("person:Anna", True)].dice.values()) == [0.7]
    assert len(result) == 2


def test_rows_are_paired_with_mine() -> None:
    mine = [row("person:Anna", case, 0.1 * case) for case in range(6)]
    others = [row("bot", case, 0.1 * case + 0.05) for case in range(3, 12)]
    result = board(collect([*mine, *others], "pocket", 5), ANNA)
    assert result["compared"] and result["cases"] == 6
    bot, me = result["rows"]
    assert (bot["player"], bot["n"], bot["person"]) == ("bot", 3, False)
    assert bot["dice"] == pytest.approx(0.45) and bot["mine"] == pytest.approx(0.4)
    assert bot["difference"] == pytest.approx(0.05)
    assert bot["interval"] is None and bot["difference_interval"] is None  # three patients
    assert me["me"] and me["n"] == 6 and me["interval"] is not None and "mine" not in me

    nobody = board(collect([*mine, *others], "pocket", 5), Player("person:Ben", False))
    assert not nobody["compared"]
    assert {r["player"]: r["n"] for r in nobody["rows"]} == {"Anna": 6, "bot": 9}
    assert board(collect(mine, "pocket", 5), ANNA, ("samples", "train"))["rows"] == []


def test_the_board_of_what_was_played(open_page) -> None:
    _, client = open_page([scattered()])
    for index in range(6):
        client.play(index, player="Anna")
    client.play(0, player="Anna", exam=True)
    keys = client.ask("GET", "played", params={"place": "c0", "player": "Anna"})["keys"]
    assert keys == [f"case-{i}" for i in range(6)]
    for key in keys:
        assert client.watch("oracle-box", "c0", key)["error"] == ""
    result = client.ask("GET", "board", params={"player": "Anna", "place": "c0"})
    by_name = {(r["player"], r["exam"]): r for r in result["rows"]}
    oracle, me, exam = by_name["oracle-box", False], by_name["Anna", False], by_name["Anna", True]
    assert oracle["oracle"] and oracle["n"] == me["n"] == 6 and oracle["synthetic"]
    low, high = oracle["difference_interval"]
    assert low <= oracle["difference"] <= high and oracle["mine"] == me["dice"]
    assert exam["n"] == 1 and exam["difference"] == 0
