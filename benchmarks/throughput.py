"""How many steps per second, next to the families' own predictors on the same work.

    python -m benchmarks.throughput --backbones sam2.1_t,medsam2 --random-weights \
        --num-envs 1,8,16 --workloads fresh,group,cached,mixed --check-floors

Every environment step counted makes a mask. Two baselines do the same work in the same run, taking
turns with the environment: (a) calls the family's predictor and encodes the image again at every
click, as MedSAM-Agent's server does; (b) encodes every distinct image once and uses the predictor's
batch call where it has one. Where a full baseline would take too long, a part is measured and
scaled per image and per click; the table says how much. A backbone may carry options, as in
`medsam2:image_size=1024`. Numbers are written after every row, the plot
at the end.
"""

from __future__ import annotations

import ast
import gc
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agents.machine import describe_machine
from benchmarks.decoding import run_decoding
from benchmarks.measurements import (
    BaselineRun,
    EnvRun,
    run_batch_calls,
    run_encoding_every_click,
    run_envs,
)
from benchmarks.meters import PARTS, MeteredBackbone
from benchmarks.reference_predictors import ReferencePredictor, reference_for
from benchmarks.throughput_report import (
    FOOTNOTES,
    check_floors,
    decode_table,
    plot_throughput,
    throughput_table,
    write_rows,
)
from benchmarks.workloads import WORKLOADS, Plan, draw_cases, make_plan
from medseg_gym import backbones
from medseg_gym.backbones import Backbone
from medseg_gym.cases import Case

_DECODE_REPETITIONS = 5
_DECODE_IMAGES = 2


@dataclass(frozen=True)
class Settings:
    """What every measurement shares; see the options of `throughput`."""

    episodes: int
    repetitions: int
    baseline_seconds: float
    cases: str
    split: str
    observed_size: int


def throughput(
    backbone_names: Annotated[
        str, typer.Option("--backbones", help="Names, comma between; options as medsam2:dtype=...")
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
    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width to respect
        console = Console(width=190)
    names, sizes = backbone_names.split(","), sorted(map(int, num_envs.split(",")))
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
        (out / "throughput.json").write_text(json.dumps(results, indent=1))
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
                        row = _labels(name, backbone, workload, size)
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
    fresh = [name for name, backbone in loaded.items() if random_weights and not files.get(name)]
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


def measure_or_note(
    row: dict[str, Any],
    backbone: Backbone,
    warm: MeteredBackbone,
    predictor: ReferencePredictor | None,
    settings: Settings,
) -> dict[str, Any]:
    """`measure`, or the labels with a note where memory does not suffice."""
    try:
        return measure(row, backbone, warm, predictor, settings)
    except (MemoryError, RuntimeError) as error:  # torch has a class of its own for GPUs alone
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and (
            "not enough memory" not in str(error) and "can't allocate memory" not in str(error)
        ):
            raise
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {**row, "note": "out of memory"}


def measure(
    row: dict[str, Any],
    backbone: Backbone,
    warm: MeteredBackbone,
    predictor: ReferencePredictor | None,
    settings: Settings,
) -> dict[str, Any]:
    """Measure one backbone, workload and number of environments.

    Args:
        row: Labels, put first in the result.
        backbone: Ours.
        warm: A wrapper that keeps its embeddings from one measurement to the next.
        predictor: Theirs, if there is one.
        settings: See there.
    """
    kinds = backbone.trained_kinds & {"box", "point"}
    plan = make_plan(row["workload"], row["num_envs"], settings.episodes, kinds)
    apart = backbone.device.type == "cuda"  # a stopwatch must wait for the GPU, which costs
    runs: list[EnvRun] = []
    slow: list[BaselineRun] = []
    batched: list[BaselineRun] = []
    for repetition in range(settings.repetitions):
        cases = _draw(plan, settings, repetition)
        rest = (plan, cases, settings.baseline_seconds, backbone.takes_mask_input)
        runs.append(_run_envs(backbone, warm, plan, cases, settings, timed=not apart))
        if predictor is not None:
            slow.append(run_encoding_every_click(predictor, *rest))
            batched.append(run_batch_calls(predictor, *rest))
    profiled = runs
    if apart:
        cases = _draw(plan, settings, settings.repetitions)
        profiled = [_run_envs(backbone, warm, plan, cases, settings, timed=True)]
    seconds = median(run.seconds for run in runs)
    counts, peaks = runs[0].counts, [run.peak for run in runs if run.peak is not None]
    shares = {
        part: median((run.parts or {})[part] / run.seconds for run in profiled) for part in PARTS
    }
    result = {
        **row,
        "steps_per_s": plan.decodes / seconds,
        "actions_per_s": plan.steps * len(plan.slots) / seconds,
        "encodes_per_episode": counts.get("encodes", 0) / plan.episodes,
        "decoder_calls_per_step": counts["decoder passes"] / plan.steps,
        "rows_per_step": counts["rows"] / plan.steps,
        "peak_memory_mib": max(peaks, default=None),
        **{f"share_{part}": share for part, share in shares.items()},
        "share_other": 1 - sum(shares.values()),
        "episodes": plan.episodes,
        "vector_steps": plan.steps,
        "decodes": plan.decodes,
        "repetitions": settings.repetitions,
        "seconds": {"env": [run.seconds for run in runs]},
    }
    for letter, baseline in (("a", slow), ("b", batched)):
        times = [run.seconds_for(plan) for run in baseline]
        result[f"steps_per_s_{letter}"] = plan.decodes / median(times) if times else None
        result[f"ratio_{letter}"] = median(times) / seconds if times else None
        result[f"{letter}_images"] = sum(run.encoded for run in baseline)
        result[f"{letter}_clicks"] = sum(run.clicks for run in baseline)
        result["seconds"][letter] = times
        result[f"dice_gap_{letter}"] = max(
            (
                abs(ours.dice[key] - dice)
                for ours, theirs in zip(runs, baseline, strict=False)
                for key, dice in theirs.dice.items()
            ),
            default=None,
        )
    return result


def _draw(plan: Plan, settings: Settings, repetition: int) -> list[Case]:
    # Known images stay the same, so that they are encoded once for all measurements.
    seed = 0 if plan.warm else 1 + repetition
    return draw_cases(settings.cases, settings.split, plan.images, seed)


def _run_envs(
    backbone: Backbone,
    warm: MeteredBackbone,
    plan: Plan,
    cases: Sequence[Case],
    settings: Settings,
    timed: bool,
) -> EnvRun:
    if plan.warm:
        return run_envs(warm, plan, cases, timed, image_size=settings.observed_size)
    with MeteredBackbone(backbone) as metered:
        return run_envs(metered, plan, cases, timed, image_size=settings.observed_size)


def measure_decoding(
    name: str,
    backbone: Backbone,
    predictor: ReferencePredictor,
    rows: int,
    settings: Settings,
) -> dict[str, Any]:
    """Compare decoding alone; also the first use of the model, so that nothing later warms it."""
    images = min(_DECODE_IMAGES, rows, predictor.encode_batch * _DECODE_IMAGES)
    cases = draw_cases(settings.cases, settings.split, images, seed=0)
    run = run_decoding(backbone, predictor, cases, rows, _DECODE_REPETITIONS)
    ours, theirs = median(run.ours), median(run.theirs)
    return {
        "backbone": name,
        "image_side": getattr(backbone, "image_side", None),
        "rows": rows,
        "rows_per_s": rows / ours,
        "rows_per_s_b": rows / theirs,
        "ratio_b": theirs / ours,
        "largest_gap": run.gap,
        "batch_call": predictor.batch_call,
        "seconds": {"ours": run.ours, "b": run.theirs},
    }


def _labels(name: str, backbone: Backbone, workload: str, num_envs: int) -> dict[str, Any]:
    return {
        "backbone": name,
        "image_side": getattr(backbone, "image_side", None),
        "workload": workload,
        "num_envs": num_envs,
        "note": "",
    }


def _load(text: str, file: str | None, random_weights: bool, device: str) -> Backbone:
    name, _, given = text.partition(":")
    options: dict[str, Any] = {}
    for pair in filter(None, given.split(":")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} must be NAME=VALUE", param_hint="--backbones")
        try:
            options[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key] = value
    spec = backbones.available().get(name)
    if random_weights and file is None and spec is not None and spec.checkpoint is not None:
        options["random_weights"] = True
    return backbones.load(name, file, device, **options)


def _pair(text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"must be BACKBONE=FILE, got {text!r}", param_hint="--checkpoint")
    return name, file


def _load_average() -> Sequence[float] | None:
    return [round(x, 2) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None


if __name__ == "__main__":
    from medseg_gym.cli import run

    run(throughput)
