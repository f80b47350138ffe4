"""`medseg train dagger | sb3-ppo | rllib-ppo | grpo | chat-ppo`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from medseg_agents.arrays.config import ArraySettings
from medseg_agents.arrays.dagger.config import DaggerConfig
from medseg_agents.arrays.rllib.config import RLlibPPOConfig
from medseg_agents.arrays.sb3.config import SB3PPOConfig
from medseg_agents.commands.trainer import Out, Plan, Resume, trainer
from medseg_agents.grpo.settings import ChatPPORun, ChatRun, GRPORun
from medseg_gym.display.output import print_result
from medseg_gym.display.terminal import make_console


def add_trainers(app: typer.Typer) -> None:
    """Add the trainers that play while they learn to `medseg train`."""
    app.command("dagger")(trainer(DaggerConfig, dagger))
    app.command("sb3-ppo")(trainer(SB3PPOConfig, sb3_ppo))
    app.command("rllib-ppo")(trainer(RLlibPPOConfig, rllib_ppo))
    app.command("grpo")(trainer(GRPORun, grpo))
    app.command("chat-ppo")(trainer(ChatPPORun, chat_ppo))


def dagger(config: DaggerConfig, *, out: Out, resume: Resume = False) -> None:
    """Train an array policy to do what an annotator would, then compare it with the baselines.

    The network plays, and the annotator, who sees the truth, labels every state that comes up.
    """
    _train("dagger", config, out, resume)


def sb3_ppo(config: SB3PPOConfig, *, out: Out, resume: Resume = False) -> None:
    """Train an array policy with PPO of Stable-Baselines3, then compare it with the baselines."""
    _train("sb3", config, out, resume)


def rllib_ppo(config: RLlibPPOConfig, *, out: Out, resume: Resume = False) -> None:
    """Train an array policy with PPO of RLlib, then compare it with the baselines."""
    _train("rllib", config, out, resume)


def grpo(config: GRPORun, *, out: Out, resume: Resume = False, plan: Plan = None) -> None:
    """Train a policy that chats with GRPO, from a checkpoint that already makes valid calls."""
    _train_chat(config, out, resume, plan)


def chat_ppo(config: ChatPPORun, *, out: Out, resume: Resume = False, plan: Plan = None) -> None:
    """Train a policy that chats with PPO over turns, from a checkpoint that makes valid calls."""
    _train_chat(config, out, resume, plan)


def _train_chat(config: ChatRun, out: Path, resume: bool, plan: str | None) -> None:
    if plan:
        _show_plan(config, plan)
        return
    from medseg_agents.grpo.train import train_chat

    train_chat(config, out, resume)
    model = out / "model"
    print_result({"run": out, "model": model, "policy": f"llm:{model}"})
    make_console().print(f"wrote {model}; play it as llm:{model}")


def _show_plan(config: ChatRun, machine: str) -> None:
    from medseg_agents.grpo.plan.machine import read_machine
    from medseg_agents.grpo.plan.report import make_plan, show_plan

    plan = make_plan(config, read_machine(machine))
    print_result(plan.as_json())
    show_plan(plan, make_console())


def _train(kind: str, config: ArraySettings, out: Path, resume: bool) -> None:
    from medseg_agents.evaluation.final_comparison import compare_run
    from medseg_agents.runs.curve import plot_run

    train: Callable[..., object] = getattr(
        import_module(f"medseg_agents.arrays.{kind}.train"), f"train_{kind}"
    )
    console = make_console()
    _check_splits(config)
    train(config, out, resume)
    plot_run(out)
    plays_as = "rllib" if kind == "rllib" else "sb3"
    result: dict[str, Any] = {"run": out, "policy": f"{plays_as}:{out}"}
    if config.test_cases:
        result["test"] = compare_run(plays_as, config, out, console).as_json()
    print_result(result)
    console.print(f"checkpoints, logs and results are in {out}")


def _check_splits(config: ArraySettings) -> None:
    """Refuse a run that would end in an error after all it has learned, for want of other cases.

    Raises:
        EmptySplit: Of a split that is to be played; it says how to do without.
    """
    from medseg_gym.cases import load_cases
    from medseg_gym.cases.source import EmptySplit

    for split, played, flag in (
        ("val", config.eval_every, "--eval-every 0"),
        ("test", config.test_cases, "--test-cases 0"),
    ):
        if played:
            try:
                load_cases(config.cases, split)
            except EmptySplit as error:
                raise EmptySplit(
                    f"{error}. Training takes no --split: {flag} does without {split} cases"
                ) from None
