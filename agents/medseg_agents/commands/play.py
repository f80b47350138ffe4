"""`medseg run` and `medseg eval`: a policy on one image, or on a whole data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from medseg_agents.commands.options import describe_fields, with_options
from medseg_agents.evaluation.options import EvalOptions, RunOptions
from medseg_gym.display.terminal import make_console
from medseg_gym.errors import MedSegError


def add_play_commands(app: typer.Typer) -> None:
    """Add `run` and `eval`."""
    app.command("run")(run_one)
    app.command("eval")(with_options(EvalOptions, evaluate_all))


_HELP = describe_fields(RunOptions)


def _option(name: str) -> Any:
    return typer.Option(help=_HELP[name])


def run_one(
    image: Annotated[Path, typer.Argument(help="PNG, JPEG, TIFF, BMP, WebP, GIF, PNM or DICOM.")],
    target: Annotated[str, _option("target")],
    policy: Annotated[str, _option("policy")],
    backbone: Annotated[str, _option("backbone")] = "pocket",
    mask: Annotated[Path | None, typer.Option(help="Truth; without it nothing is scored.")] = None,
    checkpoint: Annotated[str | None, _option("checkpoint")] = None,
    device: Annotated[str, _option("device")] = "auto",
    modality: Annotated[str, _option("modality")] = "",
    window: Annotated[str | None, _option("window")] = None,
    mask_channel: Annotated[str, _option("mask_channel")] = "auto",
    orientation: Annotated[str, _option("orientation")] = "shown",
    max_steps: Annotated[int, _option("max_steps")] = 5,
    seed: Annotated[int, _option("seed")] = 0,
    side: Annotated[int, _option("side")] = 512,
    out: Annotated[
        Path | None, typer.Option(help="Folder; left out is out/run/NAME OF THE IMAGE.")
    ] = None,
) -> None:
    """Segment one image: writes mask.png, step_N.png and record.json. Not for clinical use."""
    from medseg_agents.evaluation.single_image import run_image

    options = RunOptions(
        target=target,
        policy=policy,
        backbone=backbone,
        checkpoint=checkpoint,
        device=device,
        modality=modality,
        window=window,
        mask_channel=mask_channel,
        orientation=orientation,
        max_steps=max_steps,
        seed=seed,
        side=side,
    )
    out = out or Path("out/run") / image.stem
    record = run_image(image, options, out, mask)
    console = make_console()
    for number, step in enumerate(record["steps"], start=1):
        line = f"{number}. {step['call'] or '(unreadable)'}"
        if not step["valid"]:
            line += f"  invalid: {step['error']}"
        if "dice" in step:
            line += f"  Dice {step['dice']:.3f}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    score = f"Dice {record['dice']:.3f}" if "dice" in record else "no truth, so no score"
    console.print(f"{record['mask_pixels']} pixels, {score}; wrote mask.png, step_N.png and")
    console.print(f"record.json under {out}", soft_wrap=True)


def evaluate_all(
    options: EvalOptions,
    *,
    out: Annotated[Path, typer.Option(help="Folder of the run; the same one goes on.")],
    resume: Annotated[
        bool,
        typer.Option(help="Play what a run in this folder lacks, failed cases again; or refuse."),
    ] = True,
) -> None:
    """Play a whole data set; writes records.jsonl, results.json, summary.json and summary.csv."""
    from medseg_agents.evaluation.failed_cases import need_played
    from medseg_agents.evaluation.medsam_agent_results import results_layout, write_json
    from medseg_agents.evaluation.run import run_evaluation, torch_threads
    from medseg_agents.evaluation.summary import as_tables, summarise_by, write_csv
    from medseg_agents.runs.machine import describe_machine
    from medseg_gym.cases import left_out_note

    if not resume and (out / "records.jsonl").exists():
        raise MedSegError(f"{out} holds a run already; give another folder, or --resume")
    console = make_console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task(options.policy, total=None)
        found = run_evaluation(
            options,
            out,
            lambda total: progress.update(bar, total=total),
            lambda batch: progress.advance(bar, len(batch)),
        )
    labels = {"backbone": options.backbone, "policy": found.settings["policy"]}
    need_played(found.records, {labels["policy"]: found.failed}, str(out / "records.jsonl"))
    rows = summarise_by(found.records, "target", options.max_steps, found.failed, **labels)
    with torch_threads(options.threads):
        machine = f"{describe_machine(found.settings['device'])}, {options.workers} workers"
    summary = {
        "machine": machine,
        "settings": found.settings,
        "usage_of_this_call": found.usage,
        "failed": {one.case: one.failed for one in found.failed},
        "rows": rows,
    }
    write_json(results_layout(found.records, len(found.failed)), out / "results.json")
    write_json(summary, out / "summary.json")
    left_out = left_out_note(found.settings.get("left_out", {}))
    write_csv([{**row, "left_out": left_out} for row in rows], out / "summary.csv")
    for table in as_tables(rows, f"{options.cases}, {options.split} split", options.max_steps):
        console.print(table)
    notes = rows[0]["notes"]
    if notes:  # a narrow table drops its last column; this must not get lost
        console.print(f"Note: {', '.join(notes)}.", soft_wrap=True)
    if left_out:
        console.print(left_out, markup=False, highlight=False, soft_wrap=True)
    for one in found.failed:
        console.print(f"failed: {one.case}: {one.failed}", soft_wrap=True, markup=False)
    if found.usage:
        shown = ", ".join(f"{name} {value:g}" for name, value in found.usage.items())
        console.print(f"asked of the model's server by this call: {shown}", soft_wrap=True)
    console.print(f"Measured on: {machine}", soft_wrap=True)
    console.print(f"wrote records.jsonl, results.json, summary.json, summary.csv under {out}")
