"""Options that all commands of `medseg train` share: the folder of the run, and going on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from medseg_agents.runs.folder import RunFolder
from medseg_gym.cli.from_dataclass import with_options
from medseg_gym.errors import MedSegError
from medseg_gym.options import Options

Out = Annotated[Path, typer.Option(help="Folder of the run.")]
Resume = Annotated[
    bool,
    typer.Option(
        help="Go on with the run in the folder, from its newest whole checkpoint and with its own "
        "settings: nothing else need be given. Runs no code of the checkpoint."
    ),
]


def _let_out_miss(context: typer.Context, machine: str | None) -> str | None:
    """A plan writes nothing, so it needs no folder."""
    if machine:
        for parameter in context.command.params:
            parameter.required = parameter.required and parameter.name != "out"
    return machine


Plan = Annotated[
    str | None,
    typer.Option(
        metavar="GPUSxGB",
        is_eager=True,
        callback=_let_out_miss,
        help="Train nothing; print what each GPU of such a machine would hold, as for 8x80 (eight "
        "of 80 GB), and which settings make it fit. Of --model its config.json is enough. With "
        "8x80?sampled=900&learned=4000 (tokens a second of a runner and of a learner), or "
        "8x80?measured=RUN, also the time of an iteration.",
    ),
]


def trainer(config: type[Options], command: Callable[..., None]) -> Callable[..., None]:
    """Make the command of a trainer.

    Args:
        config: Its settings.
        command: `command(config, out=..., resume=...)`.
    """
    return with_options(config, command, stored=_stored_settings(config))


def _stored_settings(kind: type[Options]) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Make the reader of the settings of the run in `--out`, for a command with `--resume`.

    Args:
        kind: Class of the settings.

    Returns:
        A function of the values of `resume` and `out`; its settings are empty for a new run.
    """

    def settings(values: Mapping[str, Any]) -> Mapping[str, Any]:
        if not values["resume"] or values["out"] is None:
            return {}
        run = RunFolder(values["out"])
        if not run.config_file.exists():
            raise MedSegError(f"{run.path} holds no run to resume (no config.json)")
        return run.read_config(kind).to_mapping()

    return settings
