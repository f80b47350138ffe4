"""The leader board: people and policies on the same cases, images or volumes.

Two players are compared on the cases that both have finished, and on nothing else. Of several tries
at a case the first finished one counts. Only episodes with the service's own backbone and number of
steps are counted, for with another one it is another game.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from medseg_gym.play.games import PERSON, Player
from medseg_gym.play.stores.archive import Row
from medseg_gym.statistics import bootstrap_interval


class CaseName(NamedTuple):
    """A case by spec, split and key."""

    cases: str | None
    split: str
    key: str


@dataclass
class Results:
    """Results of a player.

    Args:
        dice: Dice of the first finished try at each case.
        groups: Patient, volume or image of each case.
        tries: Number of finished episodes.
        synthetic: True if some case is synthetic.
        sees_truth: True if the player was shown the ground truth.
    """

    dice: dict[CaseName, float] = field(default_factory=dict)
    groups: dict[CaseName, str] = field(default_factory=dict)
    tries: int = 0
    synthetic: bool = False
    sees_truth: bool = False


def collect(
    rows: Iterable[Row], backbone: str, max_steps: int, volumes: bool = False
) -> dict[Player, Results]:
    """Collect results by player.

    Args:
        rows: Finished episodes of all stores.
        backbone: Name of the backbone; episodes with another do not count.
        max_steps: Number of steps; episodes with another do not count.
        volumes: Count episodes on volumes, with Dice in 3D, instead of those on images.
    """
    by_player: dict[Player, Results] = {}
    first: dict[tuple[Player, CaseName], int] = {}
    for row in rows:
        if (row["depth"] is not None) != volumes:
            continue
        options = json.loads(row["options"])
        if row["backbone"] != backbone or options.get("max_steps") != max_steps:
            continue
        if not math.isfinite(row["dice"]):
            continue  # an image whose truth is not known
        player = Player(row["policy"], bool(options.get("exam", False)))
        case = CaseName(row["cases"], row["split"], row["case"])
        results = by_player.setdefault(player, Results())
        results.tries += 1
        results.sees_truth |= bool(row["sees_truth"])
        if first.get((player, case), row["rollout"] + 1) <= row["rollout"]:
            continue
        first[player, case] = row["rollout"]
        results.dice[case], results.groups[case] = row["dice"], row["group"]
        results.synthetic |= row["synthetic"]
    return by_player


def board(
    results: Mapping[Player, Results], me: Player, place: tuple[str | None, str] | None = None
) -> dict[str, Any]:
    """The table, best mean first, as JSON.

    Args:
        results: Of `collect`.
        me: Whom the others are compared with, on the cases that both finished. Somebody without
            any case is compared with nobody: then every player's own cases are listed.
        place: Spec and split that alone count; None takes all.

    Returns:
        `compared`: whether rows are paired; `rows` with `n`, `dice`, `interval` (None below five
        groups) and, if paired, `mine` on the same cases, `difference` and its interval.
    """
    mine = {case: dice for case, dice in _of(results, me).items() if _counts(case, place)}
    rows = []
    for player, reached in results.items():
        cases = [case for case in reached.dice if _counts(case, place)]
        if mine:
            cases = [case for case in cases if case in mine]
        if not cases:
            continue
        dice = [reached.dice[case] for case in cases]
        groups = [reached.groups[case] for case in cases]
        row: dict[str, Any] = {
            "player": player.policy.removeprefix(PERSON),
            "person": player.policy.startswith(PERSON),
            "exam": player.exam,
            "me": player == me,
            "oracle": reached.sees_truth,
            "synthetic": reached.synthetic,
            "n": len(cases),
            "groups": len(set(groups)),
            "dice": sum(dice) / len(dice),
            "interval": bootstrap_interval(dice, groups),
            "tries": reached.tries,
        }
        if mine and player != me:
            gaps = [d - mine[case] for d, case in zip(dice, cases, strict=True)]
            row["mine"] = sum(mine[case] for case in cases) / len(cases)
            row["difference"] = sum(gaps) / len(gaps)
            row["difference_interval"] = bootstrap_interval(gaps, groups)
        rows.append(row)
    rows.sort(key=lambda row: (-row["dice"], row["player"]))
    return {"compared": bool(mine), "cases": len(mine), "rows": rows}


def _of(results: Mapping[Player, Results], player: Player) -> Mapping[CaseName, float]:
    return results[player].dice if player in results else {}


def _counts(case: CaseName, place: tuple[str | None, str] | None) -> bool:
    return place is None or (case.cases, case.split) == place
