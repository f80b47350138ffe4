"""The two that `rl_throughput` compares: what they are told, and what is timed of them."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.learning.training_time import Clock
from medseg_gym.cases import CaseSource

PARTS = ("generation", "environment", "library", "update")


@dataclass(frozen=True)
class Plan:
    """Work of both libraries.

    Args:
        model: Folder of the checkpoint.
        cases: Spec of the training cases; as many as groups are drawn from it.
        backbone: Who segments.
        groups: Cases of an iteration.
        num_generations: Episodes of each.
        max_steps: Calls of an episode.
        micro_batch: Episodes whose gradients are computed at once.
        max_completion_length: Of an answer.
        lr: Of AdamW; small, so that both go on playing as the checkpoint does.
        iterations: Timed ones of each, after one that is not.
        seed: Of draws.
    """

    model: str
    cases: str = "phantoms:abdomen"
    backbone: str = "pocket"
    groups: int = 8
    num_generations: int = 8
    max_steps: int = 5
    micro_batch: int = 16
    max_completion_length: int = 64
    lr: float = 1e-6
    iterations: int = 6
    seed: int = 0

    @property
    def episodes(self) -> int:
        """Of an iteration."""
        return self.groups * self.num_generations


@dataclass
class Padding:
    """Count of the learner's places that hold a token, and of those that are computed for nothing.

    Attributes:
        tokens: Of rows, and of prompts that they share.
        places: Of the tables that these were put into; none where nobody counted.
    """

    tokens: int = 0
    places: int = 0

    @property
    def share(self) -> float | None:
        """Part of the places that is padding; None where nobody counted."""
        return 1 - self.tokens / self.places if self.places else None

    def watch(self) -> AbstractContextManager[Any]:
        """Count what this project's learner pads, inside the context."""
        from medseg_agents.grpo import shared_prompts
        from medseg_agents.grpo.rollout import collate, processed_rows

        def pad(rows: Any) -> Any:
            ids, mask = processed_rows.pad(rows)
            self.tokens += int(mask.sum())
            self.places += mask.size
            return ids, mask

        stack = ExitStack()
        for module in (collate, shared_prompts):
            stack.enter_context(patch.object(module, "pad", pad))
        return stack


@dataclass
class Timed:
    """Measurements of one library."""

    library: str
    clock: Clock = field(default_factory=lambda: Clock(PARTS))
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    dice: list[float] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    padding: Padding = field(default_factory=lambda: Padding())

    def row(self, episodes: int) -> dict[str, Any]:
        """Of the table."""
        whole = sum(self.seconds)
        return {
            "library": self.library,
            "episodes_per_second": episodes * len(self.seconds) / whole,
            "seconds_per_iteration": whole / len(self.seconds),
            "cpu_seconds_per_iteration": sum(self.cpu_seconds) / len(self.seconds),
            "turns": float(np.mean(self.turns)),
            "tokens": float(np.mean(self.tokens)),
            "dice": float(np.mean(self.dice)),
            "return": float(np.mean(self.returns)),
            "padding": self.padding.share,
            **{
                f"{stage}_seconds": self.clock.seconds[stage] / len(self.seconds) for stage in PARTS
            },
            **{
                f"{stage}_cpu_seconds": self.clock.cpu_seconds[stage] / len(self.seconds)
                for stage in PARTS
            },
        }


def make_rllib(plan: Plan, source: CaseSource, view: dict[str, Any]) -> Any:
    """RLlib's algorithm, with runner and learner in this process."""
    from medseg_agents.arrays.rllib.train import start_ray
    from medseg_agents.grpo import GRPOConfig

    start_ray()
    options = {**view, "cases": source, "backbone": plan.backbone, "max_steps": plan.max_steps}
    config = (
        GRPOConfig()
        .environment(env_config=options)
        .training(lr=plan.lr)
        .debugging(seed=plan.seed, log_level="ERROR")
        .chat(
            model=plan.model,
            groups=plan.groups,
            num_generations=plan.num_generations,
            micro_batch=plan.micro_batch,
            max_completion_length=plan.max_completion_length,
            loss_type="dapo",
            schedule="constant",
            warmup=0,
        )
    )
    return config.build_algo()


def rllib_watches(timed: Timed) -> list[AbstractContextManager[Any]]:
    """Return the timers and counters of RLlib; they watch from now on until they are closed."""
    from medseg_agents.llm.generation import TransformersEngine
    from ray.rllib.core.learner.learner_group import LearnerGroup

    from medseg_gym.envs.chat_vector import MedSegChatVectorEnv

    clock = timed.clock
    return [
        timed.padding.watch(),
        clock.watch(TransformersEngine, "generate", "generation"),
        clock.watch(MedSegChatVectorEnv, "step", "environment"),
        clock.watch(MedSegChatVectorEnv, "reset", "environment"),
        clock.watch(LearnerGroup, "update", "update"),
    ]


def make_trl(
    plan: Plan, source: CaseSource, view: dict[str, Any], timed: Timed, folder: str
) -> Any:
    """TRL's trainer; what it plays is written into `found`."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from medseg_agents.llm.checkpoint import load_model, load_processor
    from medseg_agents.llm.sampling import forbidden_tokens
    from medseg_agents.sft.trainer_arguments import checkpointing_name
    from medseg_agents.trl import (
        environment_rows,
        episode_return,
        make_environment,
        show_as_conversation,
    )
    from trl import GRPOConfig, GRPOTrainer

    model, processor = load_model(plan.model), load_processor(plan.model)
    settings: dict[str, Any] = {
        "output_dir": folder,
        "per_device_train_batch_size": plan.micro_batch,
        "gradient_accumulation_steps": plan.episodes // plan.micro_batch,
        "num_generations": plan.num_generations,
        # Room for every turn's completion and image; TRL knows no limit of one completion.
        "max_completion_length": plan.max_steps * (plan.max_completion_length + _turn_tokens(view)),
        "max_tool_calling_iterations": max(1, plan.max_steps - 1),
        "max_steps": plan.iterations + 1,
        "learning_rate": plan.lr,
        "lr_scheduler_type": "constant",
        "loss_type": "dapo",
        "beta": 0.0,
        "temperature": 1.0,
        "generation_kwargs": {"suppress_tokens": forbidden_tokens(model, processor)},
        "bf16": False,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "seed": plan.seed,
        checkpointing_name(): False,
    }

    def scored(completions: Any, environments: Any, **columns: Any) -> Any:
        values = episode_return(completions, environments)
        outcomes = [environment.outcome for environment in environments]
        timed.turns.append(float(np.mean([o.turns for o in outcomes])))
        timed.dice.append(float(np.mean([o.dice for o in outcomes])))
        timed.returns.append(float(np.mean(values)))
        return values

    environment: Any = make_environment(
        **view, cases=source, backbone=plan.backbone, max_steps=plan.max_steps
    )

    class Counting(GRPOTrainer):
        """Also counts what the model said."""

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            made = super()._generate_and_score_completions(inputs)
            generated = made["completion_mask"] * made.get("tool_mask", 1)
            timed.tokens.append(float(generated.sum() / len(generated)))
            return made

    trainer = Counting(
        model=model,
        args=GRPOConfig(**settings),
        # TRL plays whole batches of cases; a pass has as many as there are groups.
        train_dataset=environment_rows(source),
        processing_class=show_as_conversation(processor),
        environment_factory=environment,
        reward_funcs=scored,
    )
    return trainer


def _turn_tokens(view: dict[str, Any]) -> int:
    """Tokens of a user turn, more than enough: images of 16 x 16 pixels a token, and words."""
    return (int(view.get("image_size", 512)) // 16) ** 2 + 64


def trl_watches(clock: Clock) -> list[AbstractContextManager[Any]]:
    """Return the timers of TRL."""
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer
    from medseg_agents.trl import SegmentationEnvironment
    from trl import GRPOTrainer

    return [
        clock.watch(GRPOTrainer, "_generate_single_turn", "generation"),
        clock.watch(SegmentationEnvironment, "_play", "environment"),
        clock.watch(SegmentationEnvironment, "reset", "environment"),
        clock.watch(GRPOTrainer, "compute_loss", "update"),
        clock.watch(Accelerator, "backward", "update"),
        clock.watch(AcceleratedOptimizer, "step", "update"),
    ]
