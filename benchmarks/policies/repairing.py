"""Share of wrong masks that policies repair, beside an expert that plays the same episodes.

    python -m benchmarks.policies.repairing --policies "stop,sb3:runs/ppo" --cases phantoms:abdomen

An episode counts as repaired if Dice after at most so many calls comes within a distance of what
the expert, which sees the truth, has reached with as many from the same mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from medseg_agents import policies as policy_specs
from medseg_agents.evaluation.case_record import CaseRecord
from medseg_agents.evaluation.comparison import compare
from medseg_agents.evaluation.options import CompareOptions

from benchmarks.shared.results import show_and_keep
from medseg_gym.cases import CaseSource, load_cases
from medseg_gym.cases.initial.wrong import KINDS, Wrong, kind_of
from medseg_gym.display.numbers import with_interval
from medseg_gym.display.terminal import Table
from medseg_gym.errors import MedSegError
from medseg_gym.statistics import bootstrap_interval


def run(
    policies: Annotated[str, typer.Option(help="Specs, commas between them.")],
    cases: Annotated[str, typer.Option(help="Case spec without initial_mask.")] = (
        "phantoms?position=random"
    ),
    expert: Annotated[str, typer.Option(help="Who shows what can be reached.")] = "oracle-click",
    backbone: Annotated[str, typer.Option(help="Segmenter.")] = "pocket",
    limit: Annotated[int, typer.Option(help="First so many cases of the test split.")] = 480,
    calls: Annotated[int, typer.Option(help="Calls that policy and expert may take.")] = 3,
    within: Annotated[
        float, typer.Option(help="Dice below the expert's that still counts.")
    ] = 0.05,
    out: Annotated[Path, typer.Option(help="Folder of the table and the records.")] = Path(
        "out/repairing"
    ),
) -> None:
    """Play the episodes and print the table."""
    if calls < 1 or not 0 <= within < 1:
        raise MedSegError(f"need calls >= 1 and within in 0..1, got {calls} and {within}")
    begun = f"{cases}{'&' if '?' in cases else '?'}initial_mask=wrong"
    names = [expert, *(name for name in policy_specs.split(policies) if name != expert)]
    options = CompareOptions(
        cases=begun, backbones=(backbone,), limit=limit, max_steps=calls, by="target"
    )
    comparison = compare([policy_specs.make(name) for name in names], options, out / "played")
    comparison.write(out / "played")
    played = [comparison.played[number].records for number in range(len(names))]
    kinds = kinds_of(load_cases(begun, "test"), [record.case for record in played[0]])
    lines = [
        {"policy": one.policy, **line}
        for one, records in zip(comparison.played, played, strict=True)
        for line in summarise(records, played[0], kinds, calls, within)
    ]
    table = as_table(lines, f"{begun}, test split, {backbone}", expert, calls, within)
    show_and_keep(table, comparison.machine, out, lines=lines, calls=calls, within=within)


def kinds_of(source: CaseSource, keys: Sequence[str]) -> list[str]:
    """Return for every case what is wrong with its mask; "absent" where there is no target."""
    kinds = []
    for key in keys:
        case = source[source.index_of(key)]
        kinds.append(kind_of(case, Wrong().kinds) if case.mask.any() else "absent")
    return kinds


def is_repaired(
    records: Sequence[CaseRecord], expert: Sequence[CaseRecord], calls: int, within: float
) -> list[bool]:
    """Return for every case whether Dice comes close enough to the expert's; see `run`."""
    return [
        one.dice_after(calls) >= other.dice_after(calls) - within
        for one, other in zip(records, expert, strict=True)
    ]


def summarise(
    records: Sequence[CaseRecord],
    expert: Sequence[CaseRecord],
    kinds: Sequence[str],
    calls: int,
    within: float,
) -> list[dict[str, Any]]:
    """One line for all episodes and one for each kind of error.

    Args:
        records: Of one policy.
        expert: The same cases in the same order.
        kinds: Of their masks.
        calls: See `run`.
        within: See `run`.

    Returns:
        Each with `kind`, `cases`, `start`, `dice` after every call and `repaired`, the share of
        repaired episodes, with its `interval` over groups.
    """
    good = np.array(is_repaired(records, expert, calls, within))
    lines = []
    for kind in ("all", *KINDS, "absent"):
        chosen = [n for n, own in enumerate(kinds) if kind in ("all", own)]
        if not chosen:
            continue
        groups = [records[n].group for n in chosen]
        lines.append(
            {
                "kind": kind,
                "cases": len(chosen),
                "start": float(np.mean([records[n].dice[0] for n in chosen])),
                "dice": [
                    float(np.mean([records[n].dice_after(call + 1) for n in chosen]))
                    for call in range(calls)
                ],
                "repaired": float(good[chosen].mean()),
                "interval": bootstrap_interval(good[chosen].astype(float).tolist(), groups),
            }
        )
    return lines


def as_table(
    lines: Sequence[dict[str, Any]], title: str, expert: str, calls: int, within: float
) -> Table:
    """Rich table of lines of `summarise`, each with its `policy`."""
    table = Table(title=title, keys=2)
    for header in ("policy", "mask to begin with"):
        table.add_column(header, no_wrap=True)
    headers = ("cases", "Dice at the start", *(f"after call {n + 1}" for n in range(calls)))
    for header in (*headers, "repaired [95 %]"):
        table.add_column(header, justify="right")
    table.caption = (
        f"repaired: Dice after {calls} calls at most {within:g} below that of {expert}, which sees "
        "the truth, after as many."
    )
    for line in lines:
        table.add_row(
            line["policy"],
            line["kind"],
            str(line["cases"]),
            f"{line['start']:.3f}",
            *(f"{dice:.3f}" for dice in line["dice"]),
            with_interval(line["repaired"], line["interval"]),
        )
    return table


if __name__ == "__main__":
    from medseg_gym.cli.main import run as run_command

    run_command(run)
