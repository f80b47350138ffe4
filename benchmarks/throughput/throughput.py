"""Steps per second, next to the families' own predictors on the same work.

    python -m benchmarks.throughput.throughput --backbones sam2.1_t,medsam2 --random-weights \
        --num-envs 1,8,16 --workloads fresh,group,cached,mixed --check-floors

Every environment step counted makes a mask. Two baselines do the same work in the same run, taking
turns with the environment: (a) calls the family's predictor and encodes the image again at every
click, as MedSAM-Agent's server does; (b) encodes every distinct image once and uses the predictor's
batch call where it has one. Where a full baseline would take too long, a part is measured and
scaled per image and per click; the table says how much. A backbone may carry options, as in
`medsam2?image_size=1024`. Numbers are written after every row, the plot
at the end.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from medseg_agents.runs.machine import describe_machine
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.shared.meters import MeteredBackbone
from benchmarks.throughput.reference_predictors import reference_for
from benchmarks.throughput.report import (
    FOOTNOTES,
    check_floors,
    decode_table,
    plot_throughput,
    throughput_table,
    write_rows,
)
from benchmarks.throughput.rows import Settings, labels, measure_decoding, measure_or_note
from benchmarks.throughput.workloads import WORKLOADS, make_plan
from medseg_gym import backbones
from medseg_gym.backbones import Backbone
from medseg_gym.backbones.registry import BACKBONES
from medseg_gym.display.terminal import make_console
from medseg_gym.storage.atomic_write import atomic_write


def throughput(
    backbone_names: Annotated[
        str, typer.Option("--backbones", help="Names, comma between; options as medsam2?dtype=...")
    ] = "lite_medsam",
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="BACKBONE=FILE; may be repeated.")
    ] = None,
    random_weights: Annotated[
        bool, typer.Option(help="Fresh weights where no file is given: the work is the same.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    num_envs: Annotated[str, typer.Option(help="Numbers of slots, comma between.")] = "1,8,16",
    workloads: Annotated[str, typer.Option(help="Out of fresh, group, cached, mixed.")] = ",".join(
        WORKLOADS
    ),
    episodes: Annotated[
        int, typer.Option(help="Least episodes per measurement; rounded up to fill all slots.")
    ] = 16,
    repetitions: Annotated[int, typer.Option(help="Of every measurement; medians count.")] = 3,
    baseline_seconds: Annotated[
        float, typer.Option(help="Time for a baseline in a repetition; what has begun is finished.")
    ] = 10.0,
    decode_rows: Annotated[
        int | None, typer.Option(help="Rows of the decode-only comparison; 16, on a GPU 64.")
    ] = None,
    cases: Annotated[str, typer.Option(help='"noise" (synthetic textures) or a spec.')] = "noise",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    observed_size: Annotated[int, typer.Option(help="Side of the observed square.")] = 128,
    check: Annotated[
        bool,
        typer.Option("--check-floors", help="Compare with the floors; exit 1 if one is missed."),
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("out/throughput"),
) -> None:
    """Measure, print the tables, write throughput.json, .csv, .png and decoding.csv."""
    console = make_console()
    names, sizes = backbones.split(backbone_names), sorted(map(int, num_envs.split(",")))
    chosen = workloads.split(",")
    files = dict(_pair(text) for text in checkpoint or [])
    settings = Settings(episodes, repetitions, baseline_seconds, cases, split, observed_size)
    # A misspelt name is found here, not after an hour.
    loaded = {name: _load(name, files.get(name), random_weights, device) for name in names}
    for workload in chosen:
        make_plan(workload, 1, 1, ("box",))
    where = next(iter(loaded.values())).device
    machine = describe_machine(str(where))
    load_before = _load_average()
    console.print(f"Measured on: {machine}; load average at the start {load_before}")
    rows: list[dict[str, Any]] = []
    decodes: list[dict[str, Any]] = []
    results: dict[str, Any] = {
        "machine": machine,
        "load_average_at_start": load_before,
        "settings": {**vars(settings), "random_weights": random_weights, "files": files},
        "rows": rows,
        "decoding": decodes,
    }

    def keep() -> None:
        out.mkdir(parents=True, exist_ok=True)
        atomic_write(out / "throughput.json", json.dumps(results, indent=1))
        write_rows(rows, out / "throughput.csv", machine)
        write_rows(decodes, out / "decoding.csv", machine)

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task("", total=len(names) * (1 + len(chosen) * len(sizes)))
        for name, backbone in loaded.items():
            predictor = reference_for(backbone)
            progress.update(bar, description=f"{name}, decoding alone")
            if predictor is not None:
                count = decode_rows or (64 if where.type == "cuda" else 16)
                decodes.append(measure_decoding(name, backbone, predictor, count, settings))
                keep()
            progress.advance(bar)
            for workload in chosen:
                with MeteredBackbone(backbone) as warm:  # keeps the images of `cached`
                    full = False
                    for size in sizes:
                        progress.update(bar, description=f"{name}, {workload}, {size} envs")
                        row = labels(name, backbone, workload, size)
                        if full:
                            row["note"] = "not tried: fewer did not fit"
                        else:
                            row = measure_or_note(row, backbone, warm, predictor, settings)
                            full = bool(row["note"])
                        rows.append(row)
                        keep()
                        progress.advance(bar)
    results["load_average_at_end"] = _load_average()
    console.print(throughput_table(rows))
    if decodes:
        console.print(decode_table(decodes))
    for note in FOOTNOTES:
        console.print(note)
    fresh = [n for n in names if random_weights and not files.get(n) and _needs_file(n)]
    console.print(
        f"Images: {'synthetic noise textures, 512 x 512' if cases == 'noise' else cases}. "
        f"Random weights where a backbone needs a file: {', '.join(fresh) or 'none'}."
    )
    console.print(
        f"Measured on: {machine}; load average {load_before} before, "
        f"{results['load_average_at_end']} after"
    )
    floors = check_floors(rows, decodes, where.type)
    results["floors"] = floors
    keep()
    plot_throughput(rows, out / "throughput.png", machine)
    if check:
        for text, verdict, value in floors:
            console.print(f"{verdict}: {text}" + ("" if value is None else f" (is {value:.2f})"))
    console.print(f"wrote throughput.json, .csv, .png and decoding.csv under {out}")
    if check and any(verdict == "missed" for _, verdict, _ in floors):
        raise typer.Exit(1)


def _needs_file(text: str) -> bool:
    spec = backbones.available().get(BACKBONES.parse(text).kind)
    return spec is not None and spec.checkpoint is not None


def _load(text: str, file: str | None, random_weights: bool, device: str) -> Backbone:
    fresh = random_weights and file is None and _needs_file(text)
    options: dict[str, Any] = {"random_weights": True} if fresh else {}
    return backbones.load(text, file, device, **options)


def _pair(text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"must be BACKBONE=FILE, got {text!r}", param_hint="--checkpoint")
    return name, file


def _load_average() -> Sequence[float] | None:
    return [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None


if __name__ == "__main__":
    from medseg_gym.cli.main import run

    run(throughput)
