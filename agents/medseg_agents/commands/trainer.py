"""Options that all commands of `medseg train` share: the folder of the run, and going on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from medseg_agents.runs.resuming import stored_settings
from medseg_gym.cli.from_dataclass import with_options
from medseg_gym.options import Options

Out = Annotated[Path, typer.Option(help="Folder of the run.")]
Resume = Annotated[
    bool,
    typer.Option(
        help="Go on with the run in the folder, from its newest whole checkpoint and with its own "
        "settings: nothing else need be given. Runs no code of the checkpoint."
    ),
]


def trainer(config: type[Options], command: Callable[..., None]) -> Callable[..., None]:
    """Make the command of a trainer.

    Args:
        config: Its settings.
        command: `command(config, out=..., resume=...)`.
    """
    return with_options(config, command, stored=stored_settings(config))
