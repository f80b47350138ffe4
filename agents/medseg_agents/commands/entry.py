"""Commands that this package adds: `medseg play | run | eval | compare | train | export-model`."""

from __future__ import annotations

import typer

from medseg_agents.commands.compare import compare_policies
from medseg_agents.commands.export_model import add_export
from medseg_agents.commands.page import PlayPageOptions, play
from medseg_agents.commands.play import add_play_commands
from medseg_agents.commands.preferences import add_preferences
from medseg_agents.commands.sft import add_sft
from medseg_agents.commands.train import add_trainers
from medseg_agents.evaluation.options import CompareOptions
from medseg_gym.cli.from_dataclass import with_options

train_app = typer.Typer(no_args_is_help=True, help="Train a policy.")


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this package to `medseg`; called through an entry point."""
    add_play_commands(app)
    app.command("compare")(with_options(CompareOptions, compare_policies))
    app.command("play")(with_options(PlayPageOptions, play, results=False))
    add_export(app)
    add_trainers(train_app)
    add_sft(train_app)
    add_preferences(train_app)
    app.add_typer(train_app, name="train")
