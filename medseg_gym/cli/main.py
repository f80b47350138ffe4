"""The command line: `medseg demo | cases | backbones | trajectories | serve`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import entry_points, requires
from importlib.util import find_spec
from typing import Annotated

import typer

import medseg_gym
from medseg_gym.cli.backbones import backbones_app
from medseg_gym.cli.cases import cases_app
from medseg_gym.cli.console import console
from medseg_gym.cli.demo import demo
from medseg_gym.cli.demo_options import DemoOptions
from medseg_gym.cli.from_dataclass import with_options
from medseg_gym.cli.serve import ServeOptions, serve
from medseg_gym.cli.trajectories import trajectories_app
from medseg_gym.display.terminal import Console, drop_output
from medseg_gym.errors import MedSegError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(cases_app, name="cases")
app.add_typer(backbones_app, name="backbones")
app.add_typer(trajectories_app, name="trajectories")
app.command("serve")(with_options(ServeOptions, serve))

__all__ = ["app", "console", "main", "run"]

_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+).*extra == ['\"](?P<extra>[\w-]+)")


app.command("demo")(with_options(DemoOptions, demo))


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
    extras = [
        match["extra"]
        for match in map(_REQUIREMENT.match, requires("medseg-gym") or [])
        if match and match["name"].replace("_", "-").lower() == name
    ]
    return [extra for extra in dict.fromkeys(extras) if extra not in ("all", "dev")]


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
