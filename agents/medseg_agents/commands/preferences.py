"""`medseg train best-of-n | dpo`: learning from the better of several episodes."""

from __future__ import annotations

import typer

from medseg_agents.best_of_n.config import BestOfNRun
from medseg_agents.commands.trainer import Out, Resume, trainer
from medseg_agents.dpo.config import DpoConfig
from medseg_gym.display.output import print_result
from medseg_gym.display.terminal import make_console


def add_preferences(app: typer.Typer) -> None:
    """Add the commands to `medseg train`."""
    app.command("best-of-n")(trainer(BestOfNRun, best_of_n))
    app.command("dpo")(trainer(DpoConfig, dpo))


def best_of_n(config: BestOfNRun, *, out: Out, resume: Resume = False) -> None:
    """Sample episodes with a model that chats, and fine-tune it on the best of each case."""
    from medseg_agents.best_of_n.train import train_best_of_n

    model = train_best_of_n(config, out, resume)
    print_result({"run": out, "model": model, "policy": f"llm:{model}"})
    make_console().print(f"wrote {model}; play it as llm:{model}")


def dpo(config: DpoConfig, *, out: Out, resume: Resume = False) -> None:
    """Train a model that chats with DPO on pairs of `medseg trajectories pairs`."""
    from medseg_agents.dpo.train import train_dpo

    model = train_dpo(config, out, resume)
    print_result({"run": out, "model": model, "policy": f"llm:{model}"})
    make_console().print(f"wrote {model}; play it as llm:{model}")
