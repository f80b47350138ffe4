"""Throughput rows as tables, CSV and plot, and the floors they must reach."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg_gym.backbones.registry import BACKBONES
from medseg_gym.display.plots import drawing, labelled, legend_below, logarithmic
from medseg_gym.display.terminal import Table

Row = Mapping[str, Any]

FOOTNOTES = (
    "steps/s: steps that made a mask, resets included. x(a), x(b): ratio of median times for the "
    "same work; (a) the family's own predictor, encoding again at every click; (b) its batch call, "
    "every distinct image encoded once.",
    "Baselines are timed on the part of the work given in the last column and scaled per image and "
    "per click; environment and baselines take turns.",
    "decoder calls: forward passes of the mask decoder per vector step. Shares of time: encoder, "
    "decoder, logits to image with mask and Dice, observation arrays, the rest.",
    "memory: on a GPU the most allocated in the run; on a CPU the most that the process ever held "
    "until then, baselines and earlier rows included.",
)


# tables ---------------------------------------------------------------------------------------
def throughput_table(rows: Sequence[Row]) -> Table:
    """One line per backbone, workload and number of environments."""
    table = Table(title="Environment steps per second")
    for header in ("backbone", "workload"):
        table.add_column(header, no_wrap=True)
    for header in (
        "envs",
        "steps/s",
        "x(a)",
        "x(b)",
        "encodes/\nepisode",
        "decoder\ncalls/step",
        "rows/\nstep",
        "memory\nMiB",
        "enc/dec/mask/obs/rest\n%",
        "measured on",
    ):
        table.add_column(header, justify="right", no_wrap=True)
    previous: tuple[str, str] | None = None
    for row in rows:
        current = row["backbone"], row["workload"]
        if previous is not None and previous != current:
            table.add_section()
        table.add_row(*(("", "") if current == previous else current), *_cells(row))
        previous = current
    return table


def _cells(row: Row) -> list[str]:
    if row["note"]:
        return [str(row["num_envs"]), row["note"], *[""] * 8]
    shares = "/".join(
        f"{100 * row[f'share_{stage}']:.0f}"
        for stage in ("encode", "decode", "mask", "observe", "other")
    )
    measured = "no predictor"
    if row["a_clicks"]:
        measured = (
            f"{row['decodes'] * row['repetitions']} steps; (a) {row['a_clicks']} clicks; "
            f"(b) {row['b_images']} images, {row['b_clicks']} clicks"
        )
    return [
        str(row["num_envs"]),
        f"{row['steps_per_s']:.3g}",
        _ratio(row["ratio_a"]),
        _ratio(row["ratio_b"]),
        f"{row['encodes_per_episode']:.3g}",
        f"{row['decoder_calls_per_step']:.2f}",
        f"{row['rows_per_step']:.1f}",
        "-" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:.0f}",
        shares,
        measured,
    ]


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def decode_table(rows: Sequence[Row]) -> Table:
    """One line per backbone: decoding alone, on embeddings made before."""
    table = Table(title="Decoding alone: rows per second up to logits at image size")
    for header in ("backbone", "input", "rows", "ours", "(b)", "x(b)", "largest difference", "(b)"):
        table.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["backbone"],
            str(row["image_side"]),
            str(row["rows"]),
            f"{row['rows_per_s']:.3g}",
            f"{row['rows_per_s_b']:.3g}",
            _ratio(row["ratio_b"]),
            f"{row['largest_gap']:.1e}",
            row["batch_call"],
        )
    return table


# files ----------------------------------------------------------------------------------------
def write_rows(rows: Sequence[Row], path: Path, machine: str) -> None:
    """Write rows as CSV, without the single repetitions; nothing where there are none."""
    if not rows:
        return
    flat = [
        {k: v for k, v in row.items() if not isinstance(v, dict)} | {"machine": machine}
        for row in rows
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in flat for key in row)))
        writer.writeheader()
        writer.writerows(flat)


@drawing()
def plot_throughput(rows: Sequence[Row], path: Path, machine: str) -> None:
    """Draw steps/s against num_envs, one panel per backbone; dotted lines are baseline (a)."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    measured = [row for row in rows if not row["note"]]
    names = list(dict.fromkeys(row["backbone"] for row in measured))
    if not names:
        return
    figure = Figure(figsize=(max(5.5, 4.4 * len(names)), 4.2), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    workloads = list(dict.fromkeys(row["workload"] for row in measured))
    for panel, name in zip(panels, names, strict=True):
        lines: dict[str, list[Row]] = {}
        for row in measured:
            if row["backbone"] == name:
                lines.setdefault(row["workload"], []).append(row)
        for workload, points in lines.items():
            points = sorted(points, key=lambda row: row["num_envs"])
            envs = [row["num_envs"] for row in points]
            colour = f"C{workloads.index(workload)}"
            panel.plot(
                envs, [row["steps_per_s"] for row in points], "o-", color=colour, label=workload
            )
            if all(row["steps_per_s_a"] for row in points):
                slow = [row["steps_per_s_a"] for row in points]
                label = "dotted: (a) its predictor, encoding each click"
                panel.plot(envs, slow, ".:", color=colour, label=label)
        panel.set(title=name, xlabel="num_envs", ylabel="decoding steps per second")
        panel.set_xscale("log", base=2)
        logarithmic(panel, "y")
        panel.xaxis.set_major_formatter(ScalarFormatter())
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_xticks(sorted({row["num_envs"] for row in measured}))
        panel.grid(alpha=0.3, which="both")
    legend_below(figure, labelled(figure))
    figure.suptitle(machine, fontsize=7)
    figure.savefig(path, dpi=150)


# floors ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Floor:
    """A figure that must be reached.

    Args:
        device: "cpu" or "cuda".
        backbone: As named on the command line, without options; "" means every one.
        table: "steps" or "decode".
        column: Of that table.
        limit: Least value; the greatest one where `at_most`.
        workload: For "steps".
        num_envs: For "steps"; None means every number.
        image_side: Side of the model's input.
        at_most: True turns the comparison round.
    """

    device: str
    backbone: str
    table: str
    column: str
    limit: float
    workload: str = ""
    num_envs: int | None = None
    image_side: int | None = None
    at_most: bool = False

    @property
    def text(self) -> str:
        """Return the floor in words."""
        where = [
            self.backbone or "every backbone",
            *([f"input {self.image_side}"] if self.image_side else []),
            self.workload or "decoding alone",
            *([f"{self.num_envs} envs"] if self.num_envs else []),
        ]
        sign = "<=" if self.at_most else ">="
        return f"{', '.join(where)}: {self.column} {sign} {self.limit:g}"

    def matches(self, row: Row) -> bool:
        """True if the row is about this floor."""
        return (
            not row.get("note")
            and (not self.backbone or BACKBONES.parse(row["backbone"]).kind == self.backbone)
            and (not self.workload or row["workload"] == self.workload)
            and self.num_envs in (None, row.get("num_envs"))
            and self.image_side in (None, row["image_side"])
            and row[self.column] is not None
        )


_TINY, _BASE = "sam2.1_t", "sam2.1_b+"
FLOORS = (
    Floor("cpu", _TINY, "steps", "ratio_a", 4, "fresh", 16, 1024),
    Floor("cpu", _TINY, "steps", "ratio_a", 18, "group", 16, 1024),
    Floor("cpu", _TINY, "steps", "ratio_a", 25, "cached", 16, 1024),
    Floor("cpu", _TINY, "decode", "ratio_b", 1.2, image_side=1024),
    Floor("cpu", "medsam2", "decode", "ratio_b", 1.8, image_side=512),
    Floor("cpu", "", "steps", "decoder_calls_per_step", 1.5, "mixed", at_most=True),
    *(
        Floor("cuda", name, "steps", "ratio_a", limit, workload, num_envs, 1024)
        for name in (_TINY, _BASE)
        for workload, limit in (("fresh", 15), ("group", 60), ("cached", 100))
        for num_envs in (64, 256)
    ),
    *(Floor("cuda", name, "decode", "ratio_b", 5, image_side=1024) for name in (_TINY, _BASE)),
    Floor("cuda", _BASE, "steps", "steps_per_s", 450, "cached", 64, 1024),
    Floor("cuda", "", "steps", "decoder_calls_per_step", 1.5, "mixed", 64, at_most=True),
)


def check_floors(
    steps: Sequence[Row], decodes: Sequence[Row], device: str
) -> list[tuple[str, str, float | None]]:
    """Compare with `FLOORS`.

    Returns:
        For every floor of the device its text, "passed", "missed" or "not measured", and the
        figure: the worst one where several rows are meant.
    """
    broken: list[tuple[str, str, float | None]] = []
    for floor in (f for f in FLOORS if f.device == device):
        rows = steps if floor.table == "steps" else decodes
        values = [row[floor.column] for row in rows if floor.matches(row)]
        if not values:
            broken.append((floor.text, "not measured", None))
            continue
        worst = max(values) if floor.at_most else min(values)
        held = worst <= floor.limit if floor.at_most else worst >= floor.limit
        broken.append((floor.text, "passed" if held else "missed", worst))
    return broken
