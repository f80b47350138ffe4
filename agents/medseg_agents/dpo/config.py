"""Settings of direct preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from medseg_agents.sft.config import MachineOptions, StartOptions
from medseg_gym.errors import MedSegError
from medseg_gym.options import Options


class DpoError(MedSegError):
    """A run of DPO cannot start or go on."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions(StartOptions):
    """The model that is trained, which is also the reference."""

    model: str = ""
    """Folder of the checkpoint to start from, supervised or of reinforcement learning."""


@dataclass(frozen=True, kw_only=True)
class PairOptions(Options):
    """Pairs that are trained on, and the loss."""

    topic: ClassVar[str] = "Data and loss"

    pairs: tuple[str, ...] = ()
    """Parquet files of `medseg trajectories pairs`, or folders of them."""

    validation: tuple[str, ...] = ()
    """Files or folders like `pairs`, whose loss is logged at every checkpoint."""

    loss_type: str = "sigmoid"
    """Of TRL's `DPOTrainer`: "sigmoid" (DPO, Rafailov et al. 2023, eq. 7), "ipo" (Azar et al. 2023,
    eq. 17), "hinge" and the others that it knows."""

    beta: float = 0.1
    """Weight that holds the model to the one it began from (Rafailov et al. 2023, eq. 7)."""

    label_smoothing: float = 0.0
    """Share of pairs taken to be the wrong way round, for rewards that are noisy."""


@dataclass(frozen=True, kw_only=True)
class OptimiserOptions(Options):
    """Length of the run, batches and optimiser."""

    topic: ClassVar[str] = "Optimisation"

    epochs: float = 1.0
    """Passes over the pairs."""

    steps: int | None = None
    """Optimiser steps; replaces `epochs`."""

    batch_size: int = 4
    """Pairs a step on each device; each is two conversations."""

    accumulate: int = 1
    """Batches gathered into one optimiser step."""

    lr: float = 1e-6
    """Of AdamW; adapters take about ten times as much."""

    weight_decay: float = 0.0
    """Of AdamW."""

    schedule: str = "linear"
    """"cosine", "linear" or "constant" (after the rate has risen)."""

    warmup: int = 10
    """Optimiser steps over which the rate rises."""

    max_grad_norm: float = 1.0
    """Gradients are clipped to it."""

    seed: int = 0
    """Of the order of pairs and of new adapters."""


@dataclass(frozen=True, kw_only=True)
class DpoConfig(MachineOptions, OptimiserOptions, PairOptions, ModelOptions):
    """A run of DPO."""

    def __post_init__(self) -> None:
        for name in ("pairs", "validation"):
            object.__setattr__(self, name, tuple(str(p) for p in getattr(self, name) if p))
        for name, choices in (
            ("schedule", ("cosine", "linear", "constant")),
            ("dtype", ("auto", "float32", "bfloat16")),
            ("save_dtype", ("float32", "base")),
            ("device", ("auto", "cpu")),
        ):
            if getattr(self, name) not in choices:
                raise DpoError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        for name in ("batch_size", "accumulate", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise DpoError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.epochs <= 0 or (self.steps is not None and self.steps < 1):
            raise DpoError(f"nothing to do: epochs={self.epochs}, steps={self.steps}")
        if not self.beta > 0 or (self.lora_rank or 0) < 0:
            raise DpoError(
                f"need beta > 0 and lora_rank >= 0, got {self.beta} and {self.lora_rank}"
            )
        if not self.pairs:
            raise DpoError("pairs: name at least one file of 'medseg trajectories pairs'")
        if not self.model:
            raise DpoError("name the checkpoint to start from: --model FOLDER")
