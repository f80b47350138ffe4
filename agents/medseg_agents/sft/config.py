"""Settings of supervised fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from medseg_gym.errors import MedSegError


class SftError(MedSegError):
    """A supervised run cannot start or go on."""


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """A supervised run.

    Args:
        model: Folder of the checkpoint to start from: Qwen3-VL, or any chat model with an image
            processor that transformers loads. "tiny" builds a small one that knows nothing (see
            `llm.tiny`), with a tokenizer made from the trajectories' texts.
        trajectories: Parquet files of `medseg trajectories export`, or folders of them. Where there
            are several, their rows are mixed.
        validation: Files or folders like `trajectories`, whose loss is logged at every checkpoint.
        epochs: Passes over the rows.
        steps: Optimiser steps; replaces `epochs`.
        batch_size: Conversations a step on each device.
        accumulate: Batches gathered into one optimiser step.
        optimiser: "adamw", or "muon" (Muon on the matrices, AdamW on the rest), which suits a
            tiny model trained from nothing.
        lr: Of AdamW.
        muon_lr: Of Muon.
        weight_decay: Of both.
        schedule: "cosine", "linear" or "constant".
        warmup: Optimiser steps over which the rate rises.
        final_rate: Share of the rate that is left at the end of a falling schedule.
        max_grad_norm: Gradients are clipped to it.
        lora_rank: 0 trains all weights; else the rank of adapters on all linear layers.
        lora_alpha: Scale of the adapters; None is twice the rank.
        dtype: Of the weights: "auto" as they are stored, "float32" or "bfloat16".
        bf16: Compute in bfloat16 (autocast). None does where the device is a GPU that can.
        gradient_checkpointing: Compute activations twice instead of keeping them.
        max_length: Tokens of a conversation that are kept; None keeps all.
        device: "auto" takes an accelerator where there is one, "cpu" does not.
        loader_workers: Processes that prepare batches; 0 does it in this one.
        log_every: Optimiser steps between log lines.
        save_every: Optimiser steps between checkpoints.
        seed: Of the order of rows and of new adapters.
    """

    model: str = "tiny"
    trajectories: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    epochs: float = 1.0
    steps: int | None = None
    batch_size: int = 8
    accumulate: int = 1
    optimiser: str = "adamw"
    lr: float = 1e-5
    muon_lr: float = 0.02
    weight_decay: float = 0.01
    schedule: str = "cosine"
    warmup: int = 50
    final_rate: float = 0.05
    max_grad_norm: float = 1.0
    lora_rank: int = 0
    lora_alpha: int | None = None
    dtype: str = "auto"
    bf16: bool | None = None
    gradient_checkpointing: bool = False
    max_length: int | None = None
    device: str = "auto"
    loader_workers: int = 0
    log_every: int = 20
    save_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("trajectories", "validation"):
            object.__setattr__(self, name, tuple(str(p) for p in getattr(self, name) if p))
        for name, choices in (
            ("optimiser", ("adamw", "muon")),
            ("schedule", ("cosine", "linear", "constant")),
            ("dtype", ("auto", "float32", "bfloat16")),
            ("device", ("auto", "cpu")),
        ):
            if getattr(self, name) not in choices:
                raise SftError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        for name in ("batch_size", "accumulate", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise SftError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.epochs <= 0 or (self.steps is not None and self.steps < 1):
            raise SftError(f"nothing to do: epochs={self.epochs}, steps={self.steps}")
        if self.lora_rank < 0:
            raise SftError(f"lora_rank must be 0 or more, got {self.lora_rank}")
        if not self.trajectories:
            raise SftError("trajectories: name at least one exported parquet file or folder")
