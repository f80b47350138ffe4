"""The command line: `medseg backbones list | check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from rich.markup import escape

from medseg_gym.cli.console import console
from medseg_gym.cli.from_dataclass import with_options
from medseg_gym.display.terminal import Table
from medseg_gym.option_groups import LoadOptions, WeightOptions

backbones_app = typer.Typer(no_args_is_help=True, help="Segmenters that can be prompted.")


@dataclass(frozen=True, kw_only=True)
class CheckOptions(LoadOptions, WeightOptions):
    """Options of `medseg backbones check`."""


@backbones_app.command("list")
def list_backbones() -> None:
    """Show the known backbones and whether what they need is at hand."""
    from medseg_gym.backbones import available
    from medseg_gym.backbones.checkpoint_files import checkpoint_folders, find_checkpoint
    from medseg_gym.errors import CheckpointError

    table = Table(title="backbones")
    for header in ("name", "M param.", "prompts", "image", "weights"):
        table.add_column(header, no_wrap=True)
    table.add_column("install")
    notes = []
    for spec in available().values():
        weights = "ready"
        if spec.checkpoint is not None:
            try:
                notes.append(f"{spec.name}: found {find_checkpoint(spec, None)}")
                weights = "found"
            except CheckpointError:
                notes.append(f"{spec.name}: {spec.checkpoint} from {spec.page}")
                weights = "missing"
        table.add_row(
            spec.name,
            "" if spec.parameters is None else f"{spec.parameters:g}",
            ", ".join(spec.kinds),
            "" if spec.image_size is None else str(spec.image_size),
            weights,
            escape(f'"medseg-gym[{spec.missing_extra}]"') if spec.missing_extra else "",
        )
    console.print(table)
    folders = ", ".join(map(str, checkpoint_folders()))
    console.print(f"Weight files are looked for in: {folders}", soft_wrap=True, markup=False)
    for line in notes:
        console.print(f"  {line}", soft_wrap=True, highlight=False, markup=False)


def check_backbone(
    options: CheckOptions,
    name: Annotated[str, typer.Argument(help="As in `medseg backbones list`.")],
) -> None:
    """Load a backbone, give it one box and one click on a real case, print Dice and times."""
    from medseg_gym.backbones import load
    from medseg_gym.backbones.check import check

    backbone = load(name, options.checkpoint, options.device, **options.load_arguments())
    checked = check(backbone)
    table = Table(title=f"{name} on {checked.device}", show_header=False)
    for label, value in checked.rows():
        table.add_row(label, value)
    console.print(table)


backbones_app.command("check")(with_options(CheckOptions, check_backbone))
