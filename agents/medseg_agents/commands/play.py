"""`medseg run` and `medseg eval`: a policy on one image, or on a whole data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg_agents.evaluation.options import EvalOptions, RunOptions
from medseg_gym.cli.from_dataclass import with_options
from medseg_gym.display.output import print_result
from medseg_gym.display.progress import make_progress
from medseg_gym.display.terminal import Console, make_console
from medseg_gym.errors import MedSegError


def run_one(
    options: RunOptions,
    image: Annotated[
        Path,
        typer.Argument(
            help="PNG, JPEG, TIFF, BMP, WebP, GIF, PNM or DICOM; or a scan: .nii, .nii.gz, .nrrd, "
            ".mha, a folder or a file of many frames of DICOM."
        ),
    ],
    mask: Annotated[Path | None, typer.Option(help="Truth; without it nothing is scored.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder; left out is out/run/NAME OF THE IMAGE.")
    ] = None,
) -> None:
    """Segment one image or scan: writes its mask, images and record.json. Not for clinical use."""
    from medseg_agents.evaluation.single_image import run_image
    from medseg_agents.evaluation.volume_run import is_volume

    out = out or Path("out/run") / image.name.partition(".")[0]
    console = make_console()
    if is_volume(image):
        _run_scan(options, image, mask, out, console)
        return
    record = run_image(image, options, out, mask)
    print_result({**record, "out": out})
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


def _run_scan(
    options: RunOptions, scan: Path, truth: Path | None, out: Path, console: Console
) -> None:
    from medseg_agents.evaluation.volume_run import run_volume

    with make_progress() as progress:
        bar = progress.add_task("slices", total=None)
        record = run_volume(
            scan,
            options,
            out,
            truth,
            lambda done, total: progress.update(bar, completed=done, total=total),
        )
    print_result({**record, "out": out})
    size = f", {record['mask_ml']:.1f} mL" if "mask_ml" in record else ""
    console.print(f"{record['mask_voxels']} voxels{size} in {record['slices']} slices")
    if "scores" in record:
        shown = {name: "none" if v is None else f"{v:.3f}" for name, v in record["scores"].items()}
        console.print("3D: " + ", ".join(f"{name} {value}" for name, value in shown.items()))
        for note in record["notes"]:
            console.print(f"note: {note}", soft_wrap=True)
    else:
        console.print("no truth, so no score")
    for reason, count in record["left_out"].items():
        console.print(f"left out: {count} {reason}", soft_wrap=True, markup=False)
    for name, reason in record["not_written"].items():
        console.print(f"{name} was not written: {reason}", soft_wrap=True)
    console.print(f"wrote {', '.join(record['files'])} under {out}", soft_wrap=True)


def evaluate_all(
    options: EvalOptions,
    *,
    out: Annotated[Path, typer.Option(help="Folder of the run; the same one goes on.")],
    resume: Annotated[
        bool,
        typer.Option(help="Play what a run in this folder lacks, failed cases again; or refuse."),
    ] = True,
) -> None:
    """Play a whole data set; writes records.jsonl, results.json, summary.json and summary.csv.

    Volumes are scored in 3D (summary_volumes.csv, volumes.csv): put together from slices that were
    played one by one, or played as a whole by policies of volumes such as oracle-key-slice.
    overlays.png has the best, the median and the worst case of images.
    """
    if options.protocol:
        from medseg_agents.commands.protocol import evaluate_by_protocol

        evaluate_by_protocol(options, out, resume)
        return
    from medseg_agents.evaluation.case_record import of_images
    from medseg_agents.evaluation.failed_cases import need_played
    from medseg_agents.evaluation.figures import draw_filmstrips, draw_overlays
    from medseg_agents.evaluation.medsam_agent_results import results_layout, write_json
    from medseg_agents.evaluation.run import run_evaluation
    from medseg_agents.evaluation.summary import as_tables, summarise_by, write_csv
    from medseg_agents.evaluation.volumes.results import SLICES, WHOLE, VolumeResults
    from medseg_agents.runs.folder import RunFolder
    from medseg_gym import backbones
    from medseg_gym.cases import left_out_note, load_cases

    if not resume and RunFolder(out).records_file.exists():
        raise MedSegError(f"{out} holds a run already; give another folder, or --resume")
    console = make_console()
    with make_progress() as progress:
        bar = progress.add_task(options.policy, total=None)
        evaluated = run_evaluation(
            options,
            out,
            lambda total: progress.update(bar, total=total),
            lambda batch: progress.advance(bar, len(batch)),
        )
    labels = {"backbone": options.backbone, "policy": evaluated.settings["policy"]}
    need_played(evaluated.records, {labels["policy"]: evaluated.failed}, str(out / "records.jsonl"))
    images = of_images(evaluated.records)
    rows = []
    if images:
        costs = options.call_costs
        rows = summarise_by(images, "target", options.max_steps, evaluated.failed, costs, **labels)
    volumes = VolumeResults()
    volumes.add([evaluated.volumes], "target", **labels, plays=SLICES if images else WHOLE)
    if evaluated.masks is not None:
        volumes.count_masks(evaluated.masks)
    summary = {
        "machine": evaluated.machine,
        "settings": evaluated.settings,
        "usage_of_this_call": evaluated.usage,
        "failed": {one.case: one.failed for one in evaluated.failed},
        "rows": rows,
        **volumes.as_json(),
    }
    write_json(results_layout(evaluated.records, len(evaluated.failed)), out / "results.json")
    write_json(summary, out / "summary.json")
    left_out = left_out_note(evaluated.settings.get("left_out", {}))
    left_out = " ".join(filter(None, (left_out, evaluated.note)))
    split = evaluated.settings["split"]
    files = ["records.jsonl", "results.json", "summary.json"]
    if rows:
        write_csv([{**row, "left_out": left_out} for row in rows], out / "summary.csv")
        files.append("summary.csv")
        source = load_cases(options.cases, split)
        images = of_images(evaluated.records)
        if draw_overlays({labels["policy"]: images}, source, out / "overlays.png"):
            files.append("overlays.png")
        if options.filmstrips:
            backbone = backbones.load(options.backbone, options.checkpoint, options.device)
            if draw_filmstrips(images, source, backbone, options, out / "filmstrips.png"):
                files.append("filmstrips.png")
    files += volumes.write(out, "summary_volumes.csv", {"left_out": left_out})
    files += ["masks/"] if options.save_masks else []
    print_result(
        {
            **summary,
            "note": left_out,
            "left_out": evaluated.settings.get("left_out", {}),
            "out": out,
        }
    )
    title = f"{options.cases}, {split} split"
    for table in as_tables(rows, title, options.max_steps) if rows else ():
        console.print(table)
    volumes.show(console, title)
    # A narrow table drops its last column; this must not get lost.
    for what, some in (("Note", rows), ("In 3D", volumes.rows)):
        if notes := some[0]["notes"] if some else []:
            console.print(f"{what}: {', '.join(notes)}.", soft_wrap=True, highlight=False)
    if left_out:
        console.print(left_out, markup=False, highlight=False, soft_wrap=True)
    for one in evaluated.failed:
        console.print(f"failed: {one.case}: {one.failed}", soft_wrap=True, markup=False)
    if evaluated.usage:
        counts = ", ".join(f"{name} {value:g}" for name, value in evaluated.usage.items())
        console.print(f"asked of the model's server by this call: {counts}", soft_wrap=True)
    console.print(f"Measured on: {evaluated.machine}", soft_wrap=True)
    console.print(f"wrote {', '.join(files)} under {out}", soft_wrap=True)


run_command = with_options(RunOptions, run_one)
eval_command = with_options(EvalOptions, evaluate_all)
