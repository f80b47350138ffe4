"""Settings of rejection sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from medseg_agents.runs.options import TrackingOptions
from medseg_agents.sft.config import OptimiserOptions, StartOptions, check_training
from medseg_gym.errors import MedSegError
from medseg_gym.option_groups import EnvironmentOptions
from medseg_gym.options import Options


class BestOfNError(MedSegError):
    """A run of rejection sampling cannot start or go on."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions(StartOptions):
    """The model that is sampled from and trained."""

    model: str = ""
    """Folder of the checkpoint to start from; one that already makes valid calls."""


@dataclass(frozen=True, kw_only=True)
class SamplingOptions(Options):
    """Episodes that are sampled, and which of them are kept."""

    topic: ClassVar[str] = "Sampling"

    cases: str = "phantoms:abdomen"
    """Case spec; its "train" split is played."""

    limit: int | None = None
    """First so many cases; left out plays all."""

    num_generations: int = 8
    """Episodes of one case, of which the best is kept."""

    min_return: float | None = None
    """The best is kept where its return is at least this; None keeps it whatever it is."""

    temperature: float = 1.0
    """Completions are drawn at this temperature."""

    max_completion_length: int = 128
    """Tokens of one turn's completion at most."""

    num_envs: int = 8
    """Episodes that are played at once; it decides what is in a batch."""

    iterations: int = 1
    """Rounds of sampling and training, each with the model of the one before."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(TrackingOptions, OptimiserOptions):
    """Supervised training of an iteration, see `medseg train sft`."""

    free: ClassVar[tuple[str, ...]] = ("device", "log_every", "save_every")

    log_every: int = 20
    """Optimiser steps between log lines."""

    save_every: int = 200
    """Optimiser steps between checkpoints."""


@dataclass(frozen=True, kw_only=True)
class BestOfNRun(TrainingOptions, EnvironmentOptions, SamplingOptions, ModelOptions):
    """A run of rejection sampling (best-of-n) and supervised training on what was kept."""

    one_schedule: ClassVar[bool] = False  # but one of each iteration

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_envs", "iterations", "max_completion_length", "max_steps"):
            if getattr(self, name) < 1:
                raise BestOfNError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.num_generations < 2:
            raise BestOfNError(
                f"the best of {self.num_generations} is no choice; num_generations must be at "
                "least 2"
            )
        if self.temperature <= 0:
            raise BestOfNError(
                f"episodes are drawn: temperature must be > 0, got {self.temperature}"
            )
        check_training(self, BestOfNError)
        if not self.model:
            raise BestOfNError("name the checkpoint to start from: --model FOLDER")

    def sft(self, model: str, file: str) -> dict[str, Any]:
        """Return the settings of the supervised training of an iteration.

        Args:
            model: Folder of the model that it starts from.
            file: Of the conversations that were kept.
        """
        shared = {name: getattr(self, name) for name in _SHARED}
        device = "cpu" if self.device == "cpu" else "auto"
        return {**shared, "model": model, "trajectories": (file,), "device": device}


_SHARED = (
    *("lora_rank", "lora_alpha", "dtype", "bf16", "gradient_checkpointing", "epochs", "steps"),
    *("batch_size", "accumulate", "optimiser", "lr", "muon_lr", "weight_decay", "schedule"),
    *("warmup", "final_rate", "max_grad_norm", "seed", "log_every", "save_every"),
)
