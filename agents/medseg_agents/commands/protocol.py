"""`medseg eval --protocol NAME`: a published protocol instead of a policy."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from medseg_agents.evaluation.options import EvalOptions
from medseg_gym.display.output import print_result
from medseg_gym.display.progress import make_progress
from medseg_gym.display.terminal import make_console
from medseg_gym.errors import MedSegError

_USED = frozenset(
    "cases limit backbone checkpoint device threads protocol box make_boxes save_masks".split()
)


def evaluate_by_protocol(options: EvalOptions, out: Path, resume: bool) -> None:
    """Play the protocol; writes metrics.csv and summary.json.

    Args:
        options: As given; those that do nothing here must have their default values.
        out: Folder of the run.
        resume: Go on with a run that is there.

    Raises:
        MedSegError: An option that does nothing here, or see `run_protocol`.
    """
    from medseg_agents.evaluation.protocols.interactive_3d import (
        InteractiveSegmenter3D,
        SliceBySlice,
        WholeVolume,
        run_protocol,
    )
    from medseg_agents.evaluation.protocols.interactive_3d.results import ProtocolFolder
    from medseg_agents.runs.machine import describe_machine
    from medseg_gym import backbones
    from medseg_gym.backbones.volumes import VolumeBackbone
    from medseg_gym.parallel.compute import torch_threads

    for field in fields(options):
        if field.name not in _USED and getattr(options, field.name) != field.default:
            flag = field.name.replace("_", "-")
            raise MedSegError(f"--{flag} does nothing with --protocol {options.protocol}")
    backbone = backbones.load(options.backbone, options.checkpoint, options.device)
    segmenter: InteractiveSegmenter3D = (
        WholeVolume(backbone) if isinstance(backbone, VolumeBackbone) else SliceBySlice(backbone)
    )
    console = make_console()
    with torch_threads(options.threads):
        settings = {
            "backbone": options.backbone,
            "checkpoint": options.checkpoint,
            "device": str(backbone.device),
            "threads": options.threads,
        }
        with make_progress() as progress:
            bar = progress.add_task("volumes", total=None)
            summary = run_protocol(
                segmenter,
                options.cases,
                ProtocolFolder(out),
                box=options.box,
                made_boxes=options.make_boxes,
                save_masks=options.save_masks,
                limit=options.limit,
                settings=settings,
                machine=describe_machine(str(backbone.device)),
                resume=resume,
                on_case=lambda done, total: progress.update(bar, completed=done, total=total),
            )
    print_result({**summary, "out": out})
    means = ", ".join(f"{name} {value:.4f}" for name, value in summary["means"].items())
    console.print(f"{summary['cases']} volumes, means: {means}", soft_wrap=True)
    for what, counts in (("note", summary["notes"]), ("left out", summary["left_out"])):
        for reason, count in counts.items():
            console.print(f"{what}: {count} {reason}", soft_wrap=True, markup=False)
    console.print(f"Measured on: {summary['machine']}", soft_wrap=True)
    files = "metrics.csv, summary.json" + (", predictions/, clicks/" if options.save_masks else "")
    console.print(f"wrote {files} under {out}", soft_wrap=True)
