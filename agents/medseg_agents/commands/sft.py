"""`medseg train sft`."""

from __future__ import annotations

import typer

from medseg_agents.commands.trainer import Out, Resume, trainer
from medseg_agents.sft.config import SftConfig
from medseg_gym.display.output import print_result
from medseg_gym.display.terminal import make_console


def add_sft(app: typer.Typer) -> None:
    """Add the command to `medseg train`."""
    app.command("sft")(trainer(SftConfig, sft))


def sft(config: SftConfig, *, out: Out, resume: Resume = False) -> None:
    """Fine-tune a vision-language model on exported trajectories."""
    from medseg_agents.sft.train import train_sft

    model = train_sft(config, out, resume)
    print_result({"run": out, "model": model, "policy": f"llm:{model}"})
    make_console().print(f"wrote {model}; play it as llm:{model}")
