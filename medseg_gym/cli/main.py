"""The command line: `medseg demo | doctor | cases | backbones | trajectories | serve`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Annotated

import typer

import medseg_gym
from medseg_gym.cli.extras import extras_with, install_line
from medseg_gym.cli.lazy_commands import add_lazily
from medseg_gym.display.terminal import Console, drop_output
from medseg_gym.errors import MedSegError
from medseg_gym.own_code import OwnCodeError, chain, explain_own, own_frames, traced
from medseg_gym.thread_waiting import wait_briefly

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for _name, _path, _text in (
    (
        "demo",
        "demo:demo_command",
        "Play the bundled real cases with oracle, heuristic and random policies.",
    ),
    (
        "doctor",
        "doctor:doctor_command",
        "Say what is installed and where things are, and play one case; exit code 1 if that fails.",
    ),
    ("cases", "cases:cases_app", "Cases that are segmented."),
    ("backbones", "backbones:backbones_app", "Segmenters that can be prompted."),
    ("trajectories", "trajectories:trajectories_app", "Episodes kept on disk."),
    (
        "serve",
        "serve:serve_command",
        "Serve one batched segmenter to many rollout workers and programs. Not for clinical use.",
    ),
):
    add_lazily(app, _name, f"medseg_gym.cli.{_path}", _text)

__all__ = ["app", "main", "run"]


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
def plain_errors(program: bool = False) -> Iterator[None]:
    """Turn expected errors into one line on stderr and exit code 2.

    Of an error in the user's own code the user's part of the traceback is printed; exit code 1.

    Args:
        program: What is run is the user's own program, whose other errors keep their traceback.
    """
    code = 2
    try:
        yield
    except BrokenPipeError:  # `| head` has read enough
        drop_output()
        raise SystemExit(1) from None
    except Exception as error:
        message = _expected(error)
        if isinstance(error, OwnCodeError):
            code = 1
        elif program:
            pass
        elif not message or _is_of_files(error):
            if explained := explain_own(error):
                message, code = explained, 1
        elif frames := own_frames(error):
            message += f"\n{traced(frames)}"
        if not message:
            raise
    else:
        return
    Console(stderr=True).print(f"error: {message}", style="red", markup=False, soft_wrap=True)
    raise SystemExit(code)


def _expected(error: Exception) -> str:
    """Say in a line what a user can mend; "" of any other error."""
    one: BaseException | None = error
    while one is not None:
        if isinstance(one, MedSegError):
            return str(one)
        if isinstance(one, OSError) and one.filename is not None:
            return f"{one.filename}: {one.strerror}"  # no right to write, a file for a folder
        if isinstance(one, ModuleNotFoundError) and (extras := extras_with(one.name or "")):
            return f"{one.name} is not installed: {' or '.join(map(install_line, extras))}"
        # RLlib raises its own from what an environment raised; Ray's hold that as their cause.
        one = getattr(one, "cause", None) or one.__cause__
    return ""


def _is_of_files(error: Exception) -> bool:
    """Return whether an error is the system's alone, which code of the user's may have met."""
    return isinstance(error, OSError) and not any(isinstance(e, MedSegError) for e in chain(error))


def run(command: Callable[..., object]) -> None:
    """Run a function as a command line, with plain errors."""
    wait_briefly()
    with plain_errors(program=True):
        typer.run(command)


def main() -> None:
    """Run `medseg`."""
    wait_briefly()
    with plain_errors():
        add_installed_commands(app)
        app()


if __name__ == "__main__":
    main()
