"""Arguments that every trainer of TRL takes, from the settings of a run."""

from __future__ import annotations

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


def checkpointing_name() -> str:
    """Return transformers' name for gradient checkpointing, which it has renamed."""
    from transformers import TrainingArguments

    names = {field.name for field in fields(TrainingArguments)}
    new = "activation_checkpointing"
    return new if new in names else "gradient_checkpointing"
