"""Settings of supervised fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from medseg_agents.runs.options import TrackingOptions
from medseg_gym.errors import MedSegError, nearest
from medseg_gym.options import Options


class SftError(MedSegError):
    """A supervised run cannot start or go on."""


@dataclass(frozen=True, kw_only=True)
class StartOptions(Options):
    """The model that is trained."""

    topic: ClassVar[str] = "Model"

    model: str = "tiny"
    """Folder of the checkpoint to start from: Qwen3-VL, or any chat model with an image processor
    that transformers loads. "tiny" builds a small one that knows nothing (see `llm.tiny`), with a
    tokenizer made from the trajectories' texts.
    """

    base: str | None = None
    """Folder of the base model of the adapters to start from; None is the one that they name."""

    lora_rank: int | None = None
    """Rank of adapters on all linear layers; 0 trains all weights. None goes on with the adapters
    of the checkpoint, or trains all weights where it has none. Adapters to start from are trained
    on where this is their rank, else merged into the weights first.
    """

    lora_alpha: int | None = None
    """Scale of new adapters; None is twice the rank."""

    dtype: str = "auto"
    """Of weights that stay frozen, which are the base's under adapters: "auto" as they are stored,
    "float32" or "bfloat16". Weights that are trained are float32 whatever this says, for a step of
    AdamW at a small rate is lost in bfloat16's rounding.
    """

    save_dtype: str = "float32"
    """Of the saved weights of a whole model: "float32" as they were trained, or "base", rounded to
    the type that the checkpoint to start from is stored in. Adapters are float32.
    """

    bf16: bool | None = None
    """Compute in bfloat16 (autocast). None does where the device is a GPU that can."""

    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them."""


@dataclass(frozen=True, kw_only=True)
class ConversationOptions(Options):
    """Conversations that are trained on."""

    topic: ClassVar[str] = "Data"

    trajectories: tuple[str, ...] = ()
    """Parquet files of `medseg trajectories export`, or folders of them. Where there are several,
    their rows are mixed.
    """

    validation: tuple[str, ...] = ()
    """Files or folders like `trajectories`, whose loss is logged at every checkpoint."""

    max_length: int | None = None
    """Tokens of a conversation that are kept; None keeps all."""


@dataclass(frozen=True, kw_only=True)
class BatchOptions(Options):
    """Length of a run of one of TRL's trainers, its batches and its optimiser."""

    topic: ClassVar[str] = "Optimisation"

    epochs: float = 1.0
    """Passes over the rows."""

    steps: int | None = None
    """Optimiser steps; replaces `epochs`."""

    batch_size: int = 8
    """Conversations a step on each device."""

    accumulate: int = 1
    """Batches gathered into one optimiser step."""

    lr: float = 1e-5
    """Of AdamW; adapters take about ten times as much."""

    weight_decay: float = 0.01
    """Of AdamW."""

    schedule: str = "cosine"
    """"cosine", "linear" or "constant" (after the rate has risen)."""

    warmup: int = 50
    """Optimiser steps over which the rate rises."""

    max_grad_norm: float = 1.0
    """Gradients are clipped to it."""

    seed: int = 0
    """Of the order of rows, of new adapters and of the weights of `tiny`."""


@dataclass(frozen=True, kw_only=True)
class PlayOptions(TrackingOptions):
    """Episodes that are played while rows are learned from."""

    topic: ClassVar[str] = "Logging"
    free: ClassVar[tuple[str, ...]] = ("play_cases", "play_count", "play_backbone")

    play_cases: str | None = None
    """Case spec; the model plays the first cases of its "val" split at every checkpoint. Their
    means are logged as val/dice and so on, and a contact sheet goes to `samples/` and to `log_to`.
    Left out plays none.
    """

    play_count: int = 6
    """Number of them."""

    play_backbone: str = "pocket"
    """Segmenter of these episodes."""


@dataclass(frozen=True, kw_only=True)
class OptimiserOptions(BatchOptions):
    """Length of a supervised run, batches and optimisers."""

    optimiser: str = "adamw"
    """"adamw", or "muon" (Muon on the matrices, AdamW on the rest), which suits a tiny model
    trained from nothing.
    """

    weight_decay: float = 0.01
    """Of AdamW and of Muon."""

    muon_lr: float = 0.02
    """Of Muon."""

    final_rate: float = 0.05
    """Share of the rate that is left at the end of a falling schedule."""


@dataclass(frozen=True, kw_only=True)
class MachineOptions(PlayOptions):
    """The machine that computes a run, and how often it is logged and kept."""

    topic: ClassVar[str] = "Machine, logs and checkpoints"
    free: ClassVar[tuple[str, ...]] = ("device", "loader_workers", "log_every", "save_every")

    device: str = "auto"
    """"auto" takes an accelerator where there is one, "cpu" does not."""

    loader_workers: int = 0
    """Processes that prepare batches; 0 does it in this one."""

    log_every: int = 20
    """Optimiser steps between log lines."""

    save_every: int = 200
    """Optimiser steps between checkpoints."""


@dataclass(frozen=True, kw_only=True)
class SftConfig(MachineOptions, OptimiserOptions, ConversationOptions, StartOptions):
    """A supervised run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        take_files(self, "trajectories", "validation")
        check_training(self, SftError)
        if not self.trajectories:
            raise SftError("trajectories: name at least one exported parquet file or folder")


def take_files(options: Options, *names: str) -> None:
    """Make texts of the paths in these fields of frozen options, and leave out empty ones.

    Args:
        options: In their `__post_init__`.
        *names: Of the fields.
    """
    for name in names:
        object.__setattr__(options, name, tuple(str(p) for p in getattr(options, name) if p))


def check_training(options: Options, error: type[MedSegError]) -> None:
    """Check the ranges of the fields that runs of TRL's trainers share.

    Args:
        options: Of a run; it has some of these fields.
        error: Raised about them.

    Raises:
        MedSegError: As `error`: a value that its field cannot have.
    """
    given = vars(options)
    devices = {"device": ("auto", "cpu")} if isinstance(options, MachineOptions) else {}
    for name, choices in {**_CHOICES, **devices}.items():
        if name in given and given[name] not in choices:
            near = nearest(str(given[name]), choices)
            raise error(f"{name} must be one of {choices}, got {given[name]!r}{near}")
    for name in ("batch_size", "accumulate", "log_every", "save_every", "play_count"):
        if given.get(name, 1) < 1:
            raise error(f"{name} must be at least 1, got {given[name]}")
    if given["epochs"] <= 0 or (given["steps"] is not None and given["steps"] < 1):
        raise error(f"nothing to do: epochs={given['epochs']}, steps={given['steps']}")
    if (given["lora_rank"] or 0) < 0:
        raise error(f"lora_rank must be 0 or more, got {given['lora_rank']}")


_CHOICES = {
    "optimiser": ("adamw", "muon"),
    "schedule": ("cosine", "linear", "constant"),
    "dtype": ("auto", "float32", "bfloat16"),
    "save_dtype": ("float32", "base"),
}
