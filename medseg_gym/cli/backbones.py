"""The command line: `medseg backbones list | check`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.markup import escape

from medseg_gym.cli.from_dataclass import with_options
from medseg_gym.cli.output_options import with_output
from medseg_gym.display.output import print_result
from medseg_gym.display.terminal import Table, make_console
from medseg_gym.option_groups import LoadOptions, WeightOptions

backbones_app = typer.Typer(no_args_is_help=True, help="Segmenters that can be prompted.")


@dataclass(frozen=True, kw_only=True)
class CheckOptions(LoadOptions, WeightOptions):
    """Options of `medseg backbones check`."""


def list_backbones() -> None:
    """Show the known backbones and whether what they need is at hand."""
    from medseg_gym.backbones import available
    from medseg_gym.backbones.checkpoint_files import checkpoint_folders, find_checkpoint
    from medseg_gym.errors import CheckpointError

    table = Table(title="backbones")
    for header in ("name", "M param.", "prompts", "image", "weights"):
        table.add_column(header, no_wrap=True)
    table.add_column("install")
    notes: list[str] = []
    rows: list[dict[str, Any]] = []
    for spec in available().values():
        weights, file = "ready", None
        if spec.checkpoint is not None:
            try:
                file = find_checkpoint(spec, None)
                notes.append(f"{spec.name}: found {file}")
                weights = "found"
            except CheckpointError:
                notes.append(f"{spec.name}: {spec.checkpoint} from {spec.page}")
                weights = "missing"
        rows.append(
            {
                "name": spec.name,
                "million_parameters": spec.parameters,
                "prompts": spec.kinds,
                "image_size": spec.image_size,
                "weights": weights,
                "file": file,
                "page": spec.page,
                "missing_extra": spec.missing_extra,
            }
        )
        table.add_row(
            spec.name,
            "" if spec.parameters is None else f"{spec.parameters:g}",
            ", ".join(spec.kinds),
            "" if spec.image_size is None else str(spec.image_size),
            weights,
            escape(f'"medseg-gym[{spec.missing_extra}]"') if spec.missing_extra else "",
        )
    print_result({"backbones": rows, "folders": checkpoint_folders()})
    console = make_console()
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
    print_result({"name": name, **asdict(checked)})
    make_console().print(table)


backbones_app.command("list")(with_output(list_backbones))
backbones_app.command("check")(with_options(CheckOptions, check_backbone))
