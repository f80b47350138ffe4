"""Direct preference optimisation (Rafailov et al. 2023) with TRL's `DPOTrainer`.

The reference is the model that the run starts from: a copy of it, or, with adapters, the model
without them. A run is a folder like that of a supervised one, and goes on after a kill likewise.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from medseg_agents.dpo.config import DpoConfig, DpoError
from medseg_agents.runs.folder import RunFolder
from medseg_agents.sft.checkpoints import check_checkpoint, newest_checkpoint
from medseg_gym.storage.atomic_write import atomic_folder, named_failures

_FREE = ("device", "loader_workers")
"""Settings in which a resumed run may differ."""


def train_dpo(
    config: DpoConfig, out: str | Path, resume: bool = False, quiet: bool = False
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
        DpoError: The folder holds a run already (without `resume`) or one with other settings, or
            pairs are missing, are none or were shown otherwise than the model is.
        PolicyError: The model cannot be loaded.
    """
    from medseg_agents.llm.checkpoint import adapter_base, load_model, load_processor, save_view

    out = Path(out)
    if config.lora_rank and adapter_base(config.model):
        raise DpoError(
            f"{config.model} holds adapters, and new ones would go on a model that is in no "
            "folder; give --lora-rank 0, which folds them in and trains the whole model"
        )
    run = RunFolder(out)
    # Killed before it began, a run is begun.
    run.start(config, None, resume and run.config_file.exists(), free=_FREE, error=DpoError)
    finished = run.model
    if finished.is_dir():
        return finished
    rows, view = load_pairs(config.pairs, out / "cache")
    held_out = load_pairs(config.validation, out / "cache")[0] if config.validation else None
    policy = _check_view(config, view)
    processor = load_processor(config.model)
    model = load_model(config.model, dtype=config.dtype, merge=True)
    trainer = make_trainer(config, out, model, processor, rows, held_out, quiet)
    newest = newest_checkpoint(run.checkpoint_folder)
    if newest is not None:
        check_checkpoint(newest)
    with named_failures(run.checkpoint_folder, DpoError):
        trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    with atomic_folder(finished, DpoError) as unfinished:
        trainer.save_model(str(unfinished))
        processor.save_pretrained(unfinished)
        (unfinished / "training_args.bin").unlink(missing_ok=True)  # a pickle; see config.json
        save_view(unfinished, view, policy)
    shutil.rmtree(out / "cache", ignore_errors=True)
    return finished


def load_pairs(paths: Sequence[str], cache: Path) -> tuple[Any, dict[str, Any]]:
    """Load pairs as a `datasets.Dataset`, and how they were shown.

    Args:
        paths: Files, or folders whose parquet files are all taken.
        cache: Folder for the memory-mapped copy that `datasets` makes.

    Raises:
        DpoError: A path that is not there, holds no pairs, or pairs that were shown differently.
    """
    import datasets

    from medseg_gym.trajectories.export.export import read_chat_view

    files: list[Path] = []
    for path in map(Path, paths):
        matches = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not matches or not all(file.is_file() for file in matches):
            raise DpoError(
                f"{path}: no pairs (*.parquet) there; make them with 'medseg trajectories pairs "
                "STORE FILE.parquet'"
            )
        files += matches
    datasets.disable_progress_bars()
    try:
        rows = datasets.Dataset.from_parquet(
            list(map(str, files)),
            cache_dir=str(cache),
            columns=["prompt", "chosen", "rejected", "images"],
        )
    except (datasets.exceptions.DatasetGenerationError, ValueError, KeyError) as error:
        raise DpoError(
            f"{', '.join(map(str, files))}: not pairs as 'medseg trajectories pairs' writes them "
            f"({error})"
        ) from None
    views = {file: read_chat_view(file) or {} for file in files}
    for file, view in views.items():
        if view != views[files[0]]:
            raise DpoError(
                f"{file} was written with other options than {files[0]} ({view} and "
                f"{views[files[0]]}); write them alike, for a model is played as it was trained"
            )
    return rows, views[files[0]]


def _check_view(config: DpoConfig, view: dict[str, Any]) -> dict[str, Any]:
    """Compare the view of the pairs with the model's; returns the arguments of its policy."""
    from medseg_agents.llm.checkpoint import read_view

    shown, policy = read_view(config.model)
    other = sorted(name for name in shown if name in view and view[name] != shown[name])
    if other:
        raise DpoError(
            f"the pairs show the environment otherwise than {config.model} was trained on it "
            f"(differs: {', '.join(other)}); write them with the options of its view, "
            f"{ {name: shown[name] for name in other} }"
        )
    if policy.get("history", "all") != "all":
        raise DpoError(
            f"{config.model} is shown a part of the conversation (history {policy['history']!r}), "
            "and pairs hold all of it"
        )
    return policy


def make_trainer(
    config: DpoConfig,
    out: Path,
    model: Any,
    processor: Any,
    rows: Any,
    held_out: Any = None,
    quiet: bool = True,
) -> Any:
    """Make TRL's `DPOTrainer` for a configuration; arguments are those of `sft.train`."""
    import torch
    from transformers import PrinterCallback
    from trl import DPOConfig as TrlConfig
    from trl import DPOTrainer

    from medseg_agents.sft.logs import LogRun, WholeCheckpoints

    use_cpu = config.device == "cpu" or not torch.accelerator.is_available()
    bf16 = config.bf16
    if bf16 is None:
        bf16 = not use_cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    known = {field.name for field in fields(TrlConfig)}  # transformers renamed this one
    name = "activation_checkpointing"
    name = name if name in known else "gradient_checkpointing"
    renamed: dict[str, Any] = {name: config.gradient_checkpointing}
    schedules = {"constant": "constant_with_warmup"}
    arguments = TrlConfig(
        output_dir=str(out / "checkpoints"),
        loss_type=[config.loss_type],
        beta=config.beta,
        label_smoothing=config.label_smoothing,
        max_length=None,  # a conversation that is cut has lost images or the call itself
        num_train_epochs=config.epochs,
        max_steps=config.steps or -1,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.accumulate,
        learning_rate=config.lr,
        weight_decay=config.weight_decay,
        lr_scheduler_type=schedules.get(config.schedule, config.schedule),
        warmup_steps=config.warmup,
        max_grad_norm=config.max_grad_norm,
        bf16=bf16,
        use_cpu=use_cpu,
        dataloader_num_workers=config.loader_workers,
        dataloader_pin_memory=not use_cpu,
        logging_steps=config.log_every,
        save_steps=config.save_every,
        save_total_limit=2,  # one of them is always whole
        eval_strategy="steps" if held_out is not None else "no",
        eval_steps=config.save_every,
        report_to=[],
        disable_tqdm=True,
        seed=config.seed,
        data_seed=config.seed,
        **renamed,
    )
    adapters = None
    if config.lora_rank:
        from peft import LoraConfig

        adapters = LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha or 2 * config.lora_rank,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
    trainer: Any = DPOTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=held_out,
        processing_class=processor,
        peft_config=adapters,
        callbacks=[WholeCheckpoints(), LogRun(out, quiet)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer
