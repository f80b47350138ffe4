"""Arguments that every trainer of TRL takes, from the settings of a run."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any


def trainer_arguments(config: Any, out: Path, validates: bool) -> dict[str, Any]:
    """Return arguments of transformers' `TrainingArguments`.

    Args:
        config: An `SftConfig` or a `DpoConfig`.
        out: Folder of the run.
        validates: Whether a loss on other rows is computed.
    """
    import torch

    use_cpu = config.device == "cpu" or not torch.accelerator.is_available()
    bf16 = config.bf16
    if bf16 is None:
        bf16 = not use_cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return {
        "output_dir": str(out / "checkpoints"),
        "num_train_epochs": config.epochs,
        "max_steps": config.steps or -1,
        "per_device_train_batch_size": config.batch_size,
        "per_device_eval_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.accumulate,
        "learning_rate": config.lr,
        "max_grad_norm": config.max_grad_norm,
        "bf16": bf16,
        "use_cpu": use_cpu,
        "dataloader_num_workers": config.loader_workers,
        "dataloader_pin_memory": not use_cpu,
        "logging_steps": config.log_every,
        "save_steps": config.save_every,
        "save_total_limit": 2,  # one of them is always whole
        "eval_strategy": "steps" if validates else "no",
        "eval_steps": config.save_every,
        "report_to": [],
        "disable_tqdm": True,
        "seed": config.seed,
        "data_seed": config.seed,
        checkpointing_name(): config.gradient_checkpointing,
    }


def set_length(args: Any, config: Any, rows: int) -> int:
    """Make a run as long as its settings say, its extension included.

    Args:
        args: From `trainer_arguments`, of TRL.
        config: An `SftConfig` or a `DpoConfig`.
        rows: Conversations or pairs of an epoch.

    Returns:
        Optimiser steps of the run without its extension.
    """
    steps = steps_of(config, rows, args.world_size)
    if config.extend:
        args.max_steps = config.total(steps)
    return steps


def steps_of(config: Any, rows: int, processes: int = 1) -> int:
    """Return the optimiser steps of a run, as the trainer counts them.

    Args:
        config: An `SftConfig` or a `DpoConfig`.
        rows: Conversations or pairs of an epoch.
        processes: That train together; each step is a batch of each.
    """
    if config.steps:
        return int(config.steps)
    batches: int = -(-rows // config.batch_size)
    of_each = -(-batches // processes)
    accumulated: int = max(1, -(-of_each // config.accumulate))
    return math.ceil(accumulated * float(config.epochs))


def checkpointing_name() -> str:
    """Return transformers' name for gradient checkpointing, which it has renamed."""
    from transformers import TrainingArguments

    names = {field.name for field in fields(TrainingArguments)}
    new = "activation_checkpointing"
    return new if new in names else "gradient_checkpointing"
