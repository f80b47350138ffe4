"""`medseg compare --runs A B`: two runs that were played already, laid side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from medseg_agents.evaluation.medsam_agent_results import write_json
from medseg_agents.evaluation.options import CALL_COSTS
from medseg_agents.evaluation.paired.differences import case_rows, differences, most_different
from medseg_agents.evaluation.paired.figures import draw_differences, plot_scatter
from medseg_agents.evaluation.paired.pairing import Pair, pair_rows, without_partner
from medseg_agents.evaluation.paired.played_runs import read_run
from medseg_agents.evaluation.stopping import over_start, over_start_table
from medseg_agents.evaluation.summary import write_csv
from medseg_gym.cases import CaseSource
from medseg_gym.cases.case_source import load_cases
from medseg_gym.display.numbers import with_interval
from medseg_gym.display.terminal import Table
from medseg_gym.errors import MedSegError
from medseg_gym.statistics import MIN_GROUPS

SHOWN = 10
"""Cases of the contact sheet."""

_HEADERS = {
    "dice": "Dice",
    "iou": "IoU",
    "first_dice": "Dice, 1st step",
    "nsd": "NSD",
    "hd95": "HD95",
    "boundary_iou": "boundary IoU",
    "turns": "turns",
    "episode_return": "return",
}

_IN_3D = ("dice", "iou", "first_dice")
"""Measures that are those of all voxels, where whole volumes were played."""


@dataclass
class PairedComparison:
    """Two runs side by side.

    Args:
        folders: Of the first and of the second run.
        pairs: Rows that belong together.
        alone: Names of the rows of each run that are in no pair.
        rows: See `differences`, of all pairs.
        stopping: The second run against the first under its best limit on calls, see `over_start`.
        notes: What the files say beside it; filled by `write`.
    """

    folders: tuple[Path, Path]
    pairs: list[Pair]
    alone: tuple[list[str], list[str]]
    rows: list[dict[str, Any]] = field(default_factory=list)
    stopping: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def show(self, console: Console) -> None:
        """Print the tables."""
        first, second = self.folders
        console.print(f"first: {first}", markup=False, highlight=False, soft_wrap=True)
        console.print(f"second: {second}", markup=False, highlight=False, soft_wrap=True)
        for pair in self.pairs:
            self._show_pair(pair, console)
        for note in self.remarks():
            console.print(note, markup=False, highlight=False, soft_wrap=True)

    def _show_pair(self, pair: Pair, console: Console) -> None:
        from rich.text import Text

        table = Table(keys=1, title=Text(pair.name))
        for header in ("", "n", "groups", "first", "second", "second - first [95 %]"):
            table.add_column(header, justify="right" if header else "left", no_wrap=True)
        table.add_column("higher / equal / lower", justify="right", no_wrap=True)
        for row in self.rows:
            if row["pair"] == pair.name:
                table.add_row(
                    "3D " * (pair.of_volumes and row["measure"] in _IN_3D)
                    + _HEADERS[row["measure"]],
                    str(row["n"]),
                    str(row["groups"]),
                    f"{row['first']:.3f}",
                    f"{row['second']:.3f}",
                    with_interval(row["difference"], row["difference_interval"]),
                    f"{row['higher']} / {row['equal']} / {row['lower']}",
                )
        console.print(table)
        lines = [line for line in self.stopping if line["pair"] == pair.name]
        if lines:
            title = Text(f"{pair.name}: return at a price of a call")
            console.print(over_start_table(lines, title, "first", "second"))
        if pair.differing:
            differing = Table("setting", "first", "second", keys=1)
            for name, values in pair.differing.items():
                differing.add_row(name, *(Text(str(value)) for value in values))
            console.print(differing)

    def remarks(self) -> list[str]:
        """Return what was left out, and what must be known to read the numbers."""
        remarks = []
        for pair in self.pairs:
            alone = [
                f"{count} in the {which} run only"
                for which, count in (("first", pair.only_first), ("second", pair.only_second))
                if count
            ]
            failed = [
                f"{len(row.failed)} failed in the {which} run"
                for which, row in (("first", pair.first), ("second", pair.second))
                if row.failed
            ]
            if alone or failed:
                remarks.append(f"Left out of {pair.name}: {', '.join([*alone, *failed])}.")
            for setting, words in (
                ("cases", "The cases are named differently; they were paired by their keys."),
                ("split", "The runs are of different splits; the cases that both have are shown."),
                ("seed", "The seeds differ; cases were paired whatever the seed."),
                ("max_steps", "The runs allow different numbers of steps."),
                ("reward", "The rewards differ, so returns are not compared."),
                ("version", "The runs are of different versions of medseg_gym."),
            ):
                if setting in pair.differing and words not in remarks:
                    remarks.append(words)
        for names, which in zip(self.alone, ("first", "second"), strict=True):
            if names:
                remarks.append(f"In the {which} run only: {', '.join(names)}.")
        if any(row["groups"] < MIN_GROUPS for row in self.rows):
            remarks.append("No interval: fewer than 5 groups (patients, volumes or images).")
        if any(a.synthetic for pair in self.pairs for a, _ in pair.records):
            remarks.append("Synthetic images are among the cases.")
        return remarks + self.notes

    def write(self, out: Path, cases: str | None = None) -> list[str]:
        """Write paired.json, paired.csv, cases.csv, scatter.png and differences.png.

        Args:
            out: Folder.
            cases: Where the images are; None looks where the runs say.

        Returns:
            Names of the files.
        """
        out.mkdir(parents=True, exist_ok=True)
        plot_scatter(self.pairs, out / "scatter.png")
        files = ["paired.json", "paired.csv", "cases.csv", "scatter.png"]
        sheet = out / "differences.png"
        sheet.unlink(missing_ok=True)  # of an earlier call
        if self._draw_sheet(sheet, cases):
            files.append("differences.png")
        write_json(self.as_json(), out / "paired.json")
        write_csv(self.rows, out / "paired.csv")
        write_csv([row for pair in self.pairs for row in case_rows(pair)], out / "cases.csv")
        return files

    def as_json(self) -> dict[str, Any]:
        """Return what paired.json and `--json` hold."""
        return {
            "first": str(self.folders[0]),
            "second": str(self.folders[1]),
            "pairs": [
                {
                    "pair": pair.name,
                    "cases": len(pair.cases),
                    "only_first": pair.only_first,
                    "only_second": pair.only_second,
                    "failed_first": len(pair.first.failed),
                    "failed_second": len(pair.second.failed),
                    "differing_settings": {k: list(v) for k, v in pair.differing.items()},
                }
                for pair in self.pairs
            ],
            "only_first": self.alone[0],
            "only_second": self.alone[1],
            "remarks": self.remarks(),
            "rows": self.rows,
            "stopping": self.stopping,
        }

    def _draw_sheet(self, path: Path, cases: str | None) -> bool:
        chosen = [(pair, a, b) for pair in self.pairs for a, b in most_different(pair, SHOWN)]
        chosen.sort(key=lambda one: -abs(one[2].dice[-1] - one[1].dice[-1]))
        chosen = chosen[:SHOWN]
        try:
            source = self._source(cases)
            missing = draw_differences(chosen, source, path)
        except MedSegError as problem:
            self.notes.append(
                f"differences.png was not drawn, for the images are not at hand ({problem}); say "
                "where they are with --cases"
            )
            return False
        if missing:
            self.notes.append(
                f"{len(missing)} of the {len(chosen)} cases that differ most are not in the cases "
                "at hand, and not in differences.png; say where they are with --cases"
            )
        if any(not a.mask or not b.mask for _, a, b in chosen):
            self.notes.append(
                "Where a run kept no masks, its tiles in differences.png are images and numbers."
            )
        return len(missing) < len(chosen)

    def _source(self, cases: str | None) -> CaseSource:
        settings = self.pairs[0].first.settings[0]
        return load_cases(cases or str(settings["cases"]), str(settings["split"]))


def compare_runs(
    folders: Sequence[str | Path], call_costs: Sequence[float] = CALL_COSTS
) -> PairedComparison:
    """Lay two runs of `medseg eval` or `medseg compare` side by side.

    Args:
        folders: Of the first and of the second run.
        call_costs: Prices of a call at which the second meets the first under its best limit.

    Raises:
        MedSegError: Not two runs, or they have no cases in common; see `pair_rows`.
    """
    if len(folders) != 2:
        raise MedSegError(f"two runs are laid side by side, got {len(folders)}")
    paths = (Path(folders[0]), Path(folders[1]))
    first, second = (read_run(path) for path in paths)
    pairs = pair_rows(first, second)
    comparison = PairedComparison(
        paths, pairs, (without_partner(first, pairs), without_partner(second, pairs))
    )
    comparison.rows = [row for pair in pairs for row in differences(pair)]
    comparison.stopping = [
        {"pair": pair.name, **line}
        for pair in pairs
        for line in _over_limited_first(pair, call_costs)
    ]
    return comparison


def _over_limited_first(pair: Pair, call_costs: Sequence[float]) -> list[dict[str, Any]]:
    """Compare the second run with the first one ended after its best number of calls at most."""
    first, second = zip(*pair.records, strict=True)
    max_steps = max(len(record.tools) for record in (*first, *second))
    return over_start([second], [first], max_steps, call_costs)
