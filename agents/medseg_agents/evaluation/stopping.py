"""The share of a return that stopping in time has in it, beside prompting well.

Gains in Dice telescope, so what an episode would have returned had it ended after its k-th call can
be read from its record, at any price of a call. Training has taught when to stop if the policy
returns more than its own start does under the best limit on calls; it has taught to prompt if Dice
after each call rises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg_agents.evaluation.case_record import EpisodeRecord
from medseg_agents.evaluation.options import CALL_COSTS
from medseg_gym.display.numbers import with_interval
from medseg_gym.display.terminal import Table
from medseg_gym.statistics import bootstrap_interval, interval_over_runs

if TYPE_CHECKING:
    from rich.text import Text

STOP = "stop"


def returns_after(records: Sequence[EpisodeRecord], call_cost: float, max_steps: int) -> np.ndarray:
    """Return what every episode would have returned had it ended after at most k calls.

    The reward is `dice_gain` with that price, whatever the episode was played for. A call is any
    action but Stop, invalid ones included; a policy that stopped earlier keeps its own end.

    Args:
        records: N episodes.
        call_cost: Price of a call, in Dice.
        max_steps: The most actions that an episode may have.

    Returns:
        Float array N x (`max_steps` + 1): column k is "at most k calls", the last one the policy's
        own return at that price.
    """
    table = np.empty((len(records), max_steps + 1))
    for row, record in zip(table, records, strict=True):
        paid = 0
        for step in range(max_steps + 1):
            if 0 < step <= len(record.tools) and record.tools[step - 1] != STOP:
                paid += 1
            row[step] = record.dice_after(step) - record.dice[0] - call_cost * paid
    return table


def best_limit(returns: np.ndarray) -> int:
    """Return the limit on calls that returns most on the mean of the cases.

    Args:
        returns: From `returns_after`.
    """
    return int(returns.mean(axis=0).argmax())


def summarise_stopping(
    records: Sequence[EpisodeRecord],
    max_steps: int,
    call_costs: Sequence[float] = CALL_COSTS,
) -> list[dict[str, Any]]:
    """One line per price of a call: the policy's own stops, the best limit on calls, the best stop.

    The best limit is chosen on the same cases, which flatters it a little. A limit of all steps is
    the policy as it is, so the best one never returns less.

    Args:
        records: Of one policy, at least one.
        max_steps: The most actions that an episode may have.
        call_costs: Prices of a call.

    Returns:
        Each with `call_cost`; `episode_return` and its `_interval`, with the policy's own stops;
        `limited_returns`, the return after at most k calls, k = 0..max_steps; `best_limit_return`
        and `best_limit`, the largest of them and its k; `best_stop_return`, with the best end of
        each case: what stopping alone can reach.
    """
    groups = [record.group for record in records]
    rows = []
    for cost in call_costs:
        table = returns_after(records, cost, max_steps)
        own, limited, best = table[:, -1], table.mean(axis=0), best_limit(table)
        rows.append(
            {
                "call_cost": cost,
                "episode_return": float(own.mean()),
                "episode_return_interval": bootstrap_interval(own.tolist(), groups),
                "limited_returns": limited.tolist(),
                "best_limit": best,
                "best_limit_return": float(limited[best]),
                "best_stop_return": float(table.max(axis=1).mean()),
            }
        )
    return rows


def over_start(
    runs: Sequence[Sequence[EpisodeRecord]],
    starts: Sequence[Sequence[EpisodeRecord]],
    max_steps: int,
    call_costs: Sequence[float] = CALL_COSTS,
) -> list[dict[str, Any]]:
    """Compare what was trained with its own start under the start's best limit on calls.

    Training that has only taught to stop after so many calls gains nothing here.

    Args:
        runs: Records of each training seed, the same cases in the same order.
        starts: Of the policy before training, the same cases in the same order: of each seed its
            own, or one that all began from.
        max_steps: The most actions that an episode may have.
        call_costs: Prices of a call.

    Returns:
        One line per price: `call_cost`; `episode_return`, the mean over seeds and cases; `start`
        and `start_limited`, the start's return as it is and under its best limit; `start_limits`,
        one of every start;
        `over_limited` and its `_interval`, the lead over the latter by case, for other seeds and
        other cases (see `interval_over_runs`).
    """
    groups = [record.group for record in starts[0]]
    rows = []
    for cost in call_costs:
        trained = np.stack([returns_after(run, cost, max_steps)[:, -1] for run in runs])
        before = [returns_after(start, cost, max_steps) for start in starts]
        limits = [best_limit(table) for table in before]
        limited = np.stack([t[:, limit] for t, limit in zip(before, limits, strict=True)])
        lead = trained - limited
        rows.append(
            {
                "call_cost": cost,
                "episode_return": float(trained.mean()),
                "start": float(np.mean([table[:, -1] for table in before])),
                "start_limits": limits,
                "start_limited": float(limited.mean()),
                "over_limited": float(lead.mean()),
                "over_limited_interval": interval_over_runs(lead, groups),
            }
        )
    return rows


def over_start_table(
    lines: Sequence[Mapping[str, Any]], title: str | Text, start: str, trained: str
) -> Table:
    """Rich table of lines of `over_start`; of several policies where they have a `policy`.

    Args:
        lines: Of `over_start`.
        title: Over the table.
        start: Name of what came before.
        trained: Name of what is compared with it.
    """
    named = any("policy" in line for line in lines)
    table = Table(title=title, keys=1 + named)
    if named:
        table.add_column("policy", no_wrap=True)
    headers = ("a call costs", start, f"{start}, limited (calls)", trained)
    for header in (*headers, f"{trained} - limited {start} [95 %]"):
        table.add_column(header, justify="right", no_wrap=True)
    table.caption = (
        f"limited: no episode of the {start} has more calls than the best number for it; what the "
        f"{trained} has beyond that is more than a limit would have given."
    )
    for line in lines:
        table.add_row(
            *((line["policy"],) if named else ()),
            f"{line['call_cost']:g}",
            f"{line['start']:.3f}",
            f"{line['start_limited']:.3f} ({', '.join(map(str, line['start_limits']))})",
            f"{line['episode_return']:.3f}",
            with_interval(line["over_limited"], line["over_limited_interval"], "+"),
        )
    return table


def stopping_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Rich table of the lines `stopping` of summary rows, of whole sets alone.

    Args:
        rows: See `summarise` in `medseg_agents.evaluation.summary`.
        title: Of the cases.
    """
    whole: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in rows:
        whole.setdefault((row["backbone"], row["policy"]), row)
    table = Table(keys=3, title=f"{title}: return at a price of a call, and the best stops")
    for header in ("backbone", "policy", "a call\ncosts"):
        table.add_column(header, no_wrap=True)
    for header in ("own stops [95 %]", "best limit\n(calls)", "best stop"):
        table.add_column(header, justify="right", no_wrap=True)
    table.caption = (
        "return: gain in Dice less the price of the calls. best limit: no episode has more than so "
        "many calls, the best number for these cases. best stop: every episode ends at its best "
        "moment, which is all that stopping can reach; only better prompts lead beyond it."
    )
    for (backbone, policy), row in whole.items():
        for number, line in enumerate(row["stopping"]):
            table.add_row(
                *((backbone, policy) if number == 0 else ("", "")),
                f"{line['call_cost']:g}",
                with_interval(line["episode_return"], line["episode_return_interval"]),
                f"{line['best_limit_return']:.3f} ({line['best_limit']})",
                f"{line['best_stop_return']:.3f}",
            )
        table.add_section()
    return table
