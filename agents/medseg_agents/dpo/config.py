"""Settings of direct preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from medseg_agents.sft.config import (
    BatchOptions,
    MachineOptions,
    StartOptions,
    check_training,
    take_files,
)
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
class OptimiserOptions(BatchOptions):
    """Length of a run of DPO, batches and optimiser."""

    epochs: float = 1.0
    """Passes over the pairs."""

    batch_size: int = 4
    """Pairs a step on each device; each is two conversations."""

    lr: float = 1e-6
    weight_decay: float = 0.0
    schedule: str = "linear"
    warmup: int = 10

    seed: int = 0
    """Of the order of pairs and of new adapters."""


@dataclass(frozen=True, kw_only=True)
class DpoConfig(MachineOptions, OptimiserOptions, PairOptions, ModelOptions):
    """A run of DPO."""

    def __post_init__(self) -> None:
        super().__post_init__()
        take_files(self, "pairs", "validation")
        check_training(self, DpoError)
        if not self.beta > 0:
            raise DpoError(f"beta must be above 0, got {self.beta}")
        if not self.pairs:
            raise DpoError("pairs: name at least one file of 'medseg trajectories pairs'")
        if not self.model:
            raise DpoError("name the checkpoint to start from: --model FOLDER")
