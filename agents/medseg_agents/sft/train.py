"""Supervised fine-tuning of a vision-language model on exported trajectories, with TRL.

The loss is on the assistant's turns only, with their images, full weights or LoRA. A run is a
folder: `config.json`, `checkpoints/`, `progress.jsonl`, `progress.csv`, `tensorboard/` and at the
end `model/`, which is a policy spec (`llm:RUN/model`) that is shown the environment as the
trajectories were. A run killed at any moment goes on from its newest whole checkpoint, with the
same weights in the end as one that was left alone.
"""

from __future__ import annotations

import math
import os
import shutil
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

from medseg_agents.runs.folder import RunFolder
from medseg_agents.sft.checkpoints import check_checkpoint, newest_checkpoint
from medseg_agents.sft.config import SftConfig, SftError
from medseg_agents.sft.data import leave_out_spelled, load_conversations
from medseg_gym.storage.atomic_write import atomic_folder, named_failures

_FREE = ("device", "loader_workers", "log_to")
"""Settings in which a resumed run may differ."""


def train_sft(
    config: SftConfig, out: str | Path, resume: bool = False, quiet: bool = False
) -> Path:
    """Train, or go on training.

    Args:
        config: Settings of the run.
        out: Folder of the run.
        resume: Go on with the run in `out`; a finished one is left as it is.
        quiet: No progress bar.

    Returns:
        Folder of the finished model.

    Raises:
        SftError: The folder holds a run already (without `resume`) or one with other settings, or
            trajectories are missing, are no conversations or were not all shown alike.
        PolicyError: The model cannot be loaded.
    """
    import torch

    from medseg_agents.llm.checkpoint import load_processor, save_view
    from medseg_agents.llm.weights.save import save_model
    from medseg_agents.llm.weights.start import load_for_training, start_folder

    out = Path(out)
    run = RunFolder(out)
    finished = run.model
    first = os.environ.get("RANK", "0") == "0"  # of the processes that train together
    if first:  # killed before it began, a run is begun
        run.start(config, None, resume and run.config_file.exists(), free=_FREE, error=SftError)
    if finished.is_dir():
        return finished
    rows, view = load_conversations(config.trajectories, out / "cache")
    held_out = (
        load_conversations(config.validation, out / "cache")[0] if config.validation else None
    )
    with arguments(config, out).main_process_first():
        if config.model == "tiny":
            start = out / "start"
            if first:
                _tiny(start, rows, view)
        else:
            start = start_folder(config.model, config.lora_rank, out / "base", config.base)
        newest = newest_checkpoint(run.checkpoint_folder)
    base = config.base if start == Path(config.model) else None
    processor = load_processor(start, base)
    rows, left_out = leave_out_spelled(rows, processor)
    if left_out:
        warnings.warn(
            f"{left_out} conversations spell special tokens of the tokenizer and are left out",
            stacklevel=2,
        )
    if not len(rows):
        raise SftError("every conversation spells special tokens of the tokenizer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # of new adapters
        model, origin = load_for_training(
            start, config.lora_rank, config.lora_alpha, config.dtype, base
        )
    trainer = make_trainer(config, out, model, processor, rows, held_out, quiet)
    if newest is not None:
        check_checkpoint(newest)
    with named_failures(run.checkpoint_folder, SftError):
        trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    if first:
        facts = {"algorithm": type(config).__name__, "run": str(out.absolute())}
        with atomic_folder(finished, SftError) as unfinished:
            save_model(trainer.model, processor, unfinished, origin, facts, config.save_dtype)
            save_view(unfinished, view, {})
        shutil.rmtree(out / "cache", ignore_errors=True)
    return finished


def _tiny(path: Path, rows: Any, view: dict[str, Any]) -> Path:
    """Build the tiny model for the texts that are trained on."""
    from medseg_agents.llm.tiny_model import TinyConfig, build_tiny
    from medseg_gym.envs.views.chat_texts import read_texts

    words = {
        item["text"]
        for messages in rows.select(range(min(len(rows), 1000)))["messages"]
        for message in messages
        for item in message["content"]
        if message["role"] != "assistant" and item["text"]
    }
    texts = read_texts(view.get("texts", "full"))
    words |= {texts.turn, texts.refused}
    return build_tiny(path, sorted(words), TinyConfig(image_size=view.get("image_size", 512)))


def make_trainer(
    config: SftConfig,
    out: Path,
    model: Any,
    processor: Any,
    rows: Any,
    held_out: Any = None,
    quiet: bool = True,
) -> Any:
    """Make TRL's `SFTTrainer` for a configuration.

    Args:
        config: See `SftConfig`.
        out: Folder of the run.
        model: With gradients where it is trained, see `load_for_training`.
        processor: Its processor.
        rows: From `load_conversations`.
        held_out: Likewise, whose loss is logged; or None.
        quiet: No progress bar.
    """
    import torch
    from trl import SFTTrainer

    from medseg_agents.arrays.optimisers import MuonWithAdamW, rate_over_run
    from medseg_agents.sft.logs import LogRun, WholeCheckpoints

    processor.tokenizer.padding_side = "right"
    trainer: Any = SFTTrainer(
        model=model,
        args=arguments(config, out, held_out is not None),
        train_dataset=rows,
        eval_dataset=held_out,
        processing_class=processor,
        callbacks=[WholeCheckpoints(), LogRun(out, quiet, config.log_to)],
    )
    if config.optimiser == "muon":
        optimiser: torch.optim.Optimizer = MuonWithAdamW(
            trainer.model, config.lr, config.muon_lr, config.weight_decay
        )
    else:
        optimiser = torch.optim.AdamW(
            [p for p in trainer.model.parameters() if p.requires_grad],
            lr=config.lr,
            weight_decay=config.weight_decay,
        )
    trainer.optimizer = optimiser
    trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        rate_over_run(
            config.schedule,
            steps_of(config, len(rows), trainer.args.world_size),
            config.warmup,
            config.final_rate,
        ),
    )
    trainer.remove_callback(_printer())
    return trainer


def arguments(config: SftConfig, out: Path, validates: bool = False) -> Any:
    """Make TRL's `SFTConfig` for a configuration.

    Args:
        config: See `SftConfig`.
        out: Folder of the run.
        validates: Whether a loss on other rows is computed.
    """
    import torch
    from trl import SFTConfig as TrlConfig

    use_cpu = config.device == "cpu" or not torch.accelerator.is_available()
    bf16 = config.bf16
    if bf16 is None:
        bf16 = not use_cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    renamed: dict[str, Any] = {_checkpointing(TrlConfig): config.gradient_checkpointing}
    return TrlConfig(
        output_dir=str(out / "checkpoints"),
        assistant_only_loss=True,
        max_length=config.max_length,
        num_train_epochs=config.epochs,
        max_steps=config.steps or -1,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulate,
        learning_rate=config.lr,
        max_grad_norm=config.max_grad_norm,
        bf16=bf16,
        use_cpu=use_cpu,
        dataloader_num_workers=config.loader_workers,
        dataloader_pin_memory=not use_cpu,
        logging_steps=config.log_every,
        save_steps=config.save_every,
        save_total_limit=2,  # one of them is always whole
        eval_strategy="steps" if validates else "no",
        eval_steps=config.save_every,
        prediction_loss_only=True,
        report_to=[],
        disable_tqdm=True,
        seed=config.seed,
        data_seed=config.seed,
        **renamed,
    )


def _checkpointing(arguments: type) -> str:
    """Return transformers' name for gradient checkpointing; it was renamed."""
    names = {f.name for f in fields(arguments)}
    new = "activation_checkpointing"
    return new if new in names else "gradient_checkpointing"


def _printer() -> type:
    from transformers import PrinterCallback

    return PrinterCallback


def steps_of(config: SftConfig, rows: int, processes: int = 1) -> int:
    """Return the optimiser steps of a run, as the trainer counts them.

    Args:
        config: See `SftConfig`.
        rows: Conversations of an epoch.
        processes: That train together; each step is a batch of each.
    """
    if config.steps:
        return config.steps
    batches = -(-rows // config.batch_size)
    of_each = -(-batches // processes)
    return math.ceil(max(1, -(-of_each // config.accumulate)) * config.epochs)
