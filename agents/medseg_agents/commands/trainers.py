"""`medseg train`: all trainers."""

from __future__ import annotations

import typer

from medseg_agents.commands.preferences import add_preferences
from medseg_agents.commands.sft import add_sft
from medseg_agents.commands.train import add_trainers

train_app = typer.Typer(no_args_is_help=True, help="Train a policy.")
add_trainers(train_app)
add_sft(train_app)
add_preferences(train_app)
