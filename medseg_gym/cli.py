"""The command line: `medseg demo | cases | backbones`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from medseg_gym.errors import MedSegError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Interactive medical image segmentation as gymnasium environments. Not for clinical use.",
)
cases_app = typer.Typer(no_args_is_help=True, help="What is to be segmented.")
backbones_app = typer.Typer(no_args_is_help=True, help="Who segments.")
app.add_typer(cases_app, name="cases")
app.add_typer(backbones_app, name="backbones")
console = Console()


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out/demo"),
    cases: Annotated[str, typer.Option(help="Case spec.")] = "samples",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    backbones: Annotated[str, typer.Option(help="Names, comma between.")] = "lite_medsam,ellipse",
    num_envs: Annotated[int, typer.Option(help="Slots of the vector environment.")] = 8,
    limit: Annotated[int | None, typer.Option(help="Only the first so many cases.")] = None,
) -> None:
    """Play the bundled real cases with oracle, heuristic and random policies."""
    from medseg_gym.demo import run_demo

    run_demo(
        out, cases, split, backbones.split(","), num_envs=num_envs, limit=limit, console=console
    )


@cases_app.command("list")
def list_cases(
    spec: Annotated[str, typer.Argument(help="Case spec.")] = "samples",
    limit: Annotated[int, typer.Option(help="Most cases counted per split.")] = 200,
) -> None:
    """Count the cases of a source by split, group and target."""
    from medseg_gym.cases import SPLITS, load_cases

    table = Table(title=f"cases of {spec}")
    for header in ("split", "modality", "target", "groups", "cases", "area % (min-max)"):
        table.add_column(header)
    for split in SPLITS:
        try:
            source = load_cases(spec, split)
        except MedSegError as error:
            console.print(f"{split}: {error}")
            continue
        counted = min(limit, len(source))
        rows: dict[tuple[str, str], list] = {}
        for index in range(counted):
            case = source[index]
            modality = case.modality + (" (synthetic)" if case.synthetic else "")
            rows.setdefault((modality, case.target), []).append(case)
        for (modality, target), found in rows.items():
            areas = [100 * case.area_fraction for case in found]
            groups = len({case.group for case in found})
            area = f"{min(areas):.2f}-{max(areas):.2f}"
            table.add_row(split, modality, target, str(groups), str(len(found)), area)
        if counted < len(source):
            table.add_row(split, "", f"... the first {counted} of {len(source)} cases", "", "", "")
    console.print(table)


@backbones_app.command("list")
def list_backbones() -> None:
    """Show the known backbones and whether their weights are at hand."""
    from medseg_gym.backbones import available
    from medseg_gym.backbones.registry import find_checkpoint
    from medseg_gym.errors import CheckpointError

    table = Table(title="backbones")
    for header in ("name", "what it is", "weights"):
        table.add_column(header)
    for spec in available().values():
        if spec.checkpoint is None:
            weights = "none needed"
        else:
            try:
                weights = f"found: {find_checkpoint(spec, None)}"
            except CheckpointError:
                weights = f"missing: {spec.checkpoint} from {spec.page}"
        table.add_row(spec.name, spec.summary, weights)
    console.print(table)


def run(command: Callable[..., object]) -> None:
    """Run a typer app or function; expected errors become one line on stderr and exit code 2."""
    try:
        if isinstance(command, typer.Typer):
            command()
        else:
            typer.run(command)
    except MedSegError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        raise SystemExit(2) from None


def main() -> None:
    """Run `medseg`."""
    run(app)


if __name__ == "__main__":
    main()
