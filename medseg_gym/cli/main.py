"""The command line: `medseg demo | cases | backbones | trajectories | serve`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import entry_points, requires
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

import medseg_gym
from medseg_gym.cli.cases import cases_app
from medseg_gym.cli.serve import serve
from medseg_gym.cli.trajectories import trajectories_app
from medseg_gym.display.terminal import Table, drop_output, make_console
from medseg_gym.errors import MedSegError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
backbones_app = typer.Typer(no_args_is_help=True, help="Who segments.")
app.add_typer(cases_app, name="cases")
app.add_typer(backbones_app, name="backbones")
app.add_typer(trajectories_app, name="trajectories")
app.command("serve")(serve)
console = make_console()

_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+).*extra == ['\"](?P<extra>[\w-]+)")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"medseg-gym {medseg_gym.__version__}")
        raise typer.Exit


@app.callback()
def medseg(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Interactive medical image segmentation as gymnasium environments. Not for clinical use."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out/demo"),
    cases: Annotated[str, typer.Option(help="Case spec.")] = "samples",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    backbones: Annotated[
        str, typer.Option(help="Names, comma between; pictures are of the first.")
    ] = "pocket,lite_medsam,ellipse",
    num_envs: Annotated[int, typer.Option(help="Slots of the vector environment.")] = 8,
    limit: Annotated[int | None, typer.Option(help="Only the first so many cases.")] = None,
) -> None:
    """Play the bundled real cases with oracle, heuristic and random policies."""
    from medseg_gym.backbones import split as split_specs
    from medseg_gym.cli.demo import run_demo

    run_demo(
        out, cases, split, split_specs(backbones), num_envs=num_envs, limit=limit, console=console
    )


@backbones_app.command("list")
def list_backbones() -> None:
    """Show the known backbones and whether what they need is at hand."""
    from medseg_gym.backbones import available
    from medseg_gym.backbones.registry import checkpoint_folders, find_checkpoint
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


@backbones_app.command("check")
def check_backbone(
    name: Annotated[str, typer.Argument(help="As in `medseg backbones list`.")],
    checkpoint: Annotated[Path | None, typer.Option(help="Weight file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the encoder's input.")] = None,
    random_weights: Annotated[bool, typer.Option(help="Time it without a weight file.")] = False,
) -> None:
    """Load a backbone, give it one box and one click on a real case, print Dice and times."""
    from medseg_gym.backbones import load
    from medseg_gym.backbones.check import check

    given = {"dtype": dtype, "image_size": image_size, "random_weights": random_weights or None}
    options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    found = check(load(name, checkpoint, device, **options))
    table = Table(title=f"{name} on {found.device}", show_header=False)
    for label, value in found.rows():
        table.add_row(label, value)
    console.print(table)


@cache
def add_installed_commands(to: typer.Typer) -> None:
    """Let installed packages add commands: entry points "medseg_gym.commands", called with the app.

    This is how `medseg_agents` adds its own: nothing in this package imports it.

    Raises:
        MedSegError: An entry point cannot be loaded.
    """
    for entry in entry_points(group="medseg_gym.commands"):
        try:
            add = entry.load()
        except (ImportError, AttributeError) as error:
            module = entry.value.partition(":")[0]
            root = find_spec(module.partition(".")[0])
            raise MedSegError(
                f"the commands of {entry.value!r} cannot be loaded: {error}; the package is "
                f"{root.origin if root else 'not installed'}. Where that is another package of the "
                "same name, install medseg-gym into an environment of its own"
            ) from error
        add(to)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn expected errors into one line on stderr and exit code 2."""
    try:
        yield
    except BrokenPipeError:  # `| head` has read enough
        drop_output()
        raise SystemExit(1) from None
    except MedSegError as error:
        message = str(error)
    except ModuleNotFoundError as error:
        extras = _extras_with(error.name or "")
        if not extras:
            raise
        wanted = " or ".join(f'"medseg-gym[{extra}]"' for extra in extras)
        message = f"{error.name} is not installed: pip install {wanted}"
    else:
        return
    Console(stderr=True).print(f"error: {message}", style="red", markup=False, soft_wrap=True)
    raise SystemExit(2)


def _extras_with(module: str) -> list[str]:
    """Extras of this package, those that combine others left out, which bring a module."""
    name = module.partition(".")[0].replace("_", "-").lower()
    found = [
        match["extra"]
        for match in map(_REQUIREMENT.match, requires("medseg-gym") or [])
        if match and match["name"].replace("_", "-").lower() == name
    ]
    return [extra for extra in dict.fromkeys(found) if extra not in ("all", "dev")]


def run(command: Callable[..., object]) -> None:
    """Run a function as a command line, with plain errors."""
    with plain_errors():
        typer.run(command)


def main() -> None:
    """Run `medseg`."""
    with plain_errors():
        add_installed_commands(app)
        app()


if __name__ == "__main__":
    main()
