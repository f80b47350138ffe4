"""Supervised fine-tuning of a vision-language model on exported trajectories, with TRL.

The loss is on the assistant's turns only, pictures included, full weights or LoRA. A run is a
folder: `config.json`, `checkpoints/`, `log.jsonl`, `log.csv`, `tensorboard/` and at the end
`model/`, which is a contender (`llm:RUN/model`) that is shown the environment as the trajectories
were. A run killed at any moment goes on from its newest whole checkpoint, with the same weights in
the end as one that was left alone.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from medseg_gym.errors import MedSegError

WHOLE = "whole"
"""Name of the file that says that a checkpoint was written to its end."""


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


def train_sft(
    config: SftConfig, out: str | Path, resume: bool = False, quiet: bool = False
) -> Path:
    """Train, or go on training.

    Args:
        config: What to do.
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
    from agents.llm.checkpoint import load_model, load_processor, save_view

    out = Path(out)
    _claim(out, config, resume)
    finished = out / "model"
    if finished.is_dir():
        return finished
    rows, view = load_conversations(config.trajectories, out / "cache")
    held_out = (
        load_conversations(config.validation, out / "cache")[0] if config.validation else None
    )
    start = Path(config.model)
    if config.model == "tiny":
        start = _tiny(out / "start", rows, view)
    processor = load_processor(start)
    model = load_model(start, dtype=config.dtype)
    trainer = make_trainer(config, out, model, processor, rows, held_out, quiet)
    trainer.train(resume_from_checkpoint=_newest(out / "checkpoints"))
    part = out / "model.part"
    shutil.rmtree(part, ignore_errors=True)
    trainer.save_model(str(part))
    processor.save_pretrained(part)
    (part / "training_args.bin").unlink(missing_ok=True)  # a pickle; config.json says it all
    save_view(part, view, {})
    os.replace(part, finished)
    shutil.rmtree(out / "cache", ignore_errors=True)
    return finished


def _tiny(path: Path, rows: Any, view: dict[str, Any]) -> Path:
    """The tiny model for what is trained on."""
    from agents.llm.tiny import TinyConfig, build_tiny
    from medseg_gym.envs.chat_texts import read_texts

    words = {
        part["text"]
        for messages in rows.select(range(min(len(rows), 1000)))["messages"]
        for message in messages
        for part in message["content"]
        if message["role"] != "assistant" and part["text"]
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
    """TRL's `SFTTrainer` for a configuration.

    Args:
        config: See `SftConfig`.
        out: Folder of the run.
        model: From transformers.
        processor: Its processor.
        rows: From `load_conversations`.
        held_out: Likewise, whose loss is logged; or None.
        quiet: No progress bar.
    """
    import torch
    from trl import SFTConfig as TrlConfig
    from trl import SFTTrainer

    from agents.optimisers import MuonWithAdamW, rate_over_run
    from agents.sft_logs import LogFiles, ProgressBar, WholeCheckpoints

    use_cpu = config.device == "cpu" or not torch.accelerator.is_available()
    bf16 = config.bf16
    if bf16 is None:
        bf16 = not use_cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    arguments = TrlConfig(
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
        eval_strategy="steps" if held_out is not None else "no",
        eval_steps=config.save_every,
        prediction_loss_only=True,
        report_to=[],
        disable_tqdm=True,
        seed=config.seed,
        data_seed=config.seed,
        **{_checkpointing(TrlConfig): config.gradient_checkpointing},
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
    processor.tokenizer.padding_side = "right"
    trainer: Any = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=held_out,
        processing_class=processor,
        peft_config=adapters,
        callbacks=[WholeCheckpoints(), LogFiles(out)] + ([] if quiet else [ProgressBar()]),
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
            config.schedule, steps_of(config, len(rows)), config.warmup, config.final_rate
        ),
    )
    trainer.remove_callback(_printer())
    return trainer


def _checkpointing(arguments: type) -> str:
    """What transformers calls gradient checkpointing; it changed its name."""
    names = {f.name for f in fields(arguments)}
    new = "activation_checkpointing"
    return new if new in names else "gradient_checkpointing"


def _printer() -> type:
    from transformers import PrinterCallback

    return PrinterCallback


def steps_of(config: SftConfig, rows: int) -> int:
    """Optimiser steps of a run over so many rows, on one device."""
    if config.steps:
        return config.steps
    batches = -(-rows // config.batch_size)
    return max(1, int(-(-batches // config.accumulate) * config.epochs))


def load_conversations(paths: Sequence[str], cache: Path) -> tuple[Any, dict[str, Any]]:
    """Rows of exported parquet files as a `datasets.Dataset` with `messages` and `images`.

    Also returns how they were shown: arguments of `MedSegChat-v0`, empty where no file says so.

    Args:
        paths: Files, or folders whose parquet files are all taken.
        cache: Folder for the memory-mapped copy that `datasets` makes.

    Raises:
        SftError: A path that is not there, holds no parquet file or no conversations, or files
            that were shown differently.
    """
    import datasets

    from medseg_gym.trajectories.export import read_chat_view

    files: list[str] = []
    for path in map(Path, paths):
        if (path / "format.json").is_file():
            raise SftError(
                f"{path} is a trajectory store; export it first: 'medseg trajectories export "
                f"{path} FILE.parquet'"
            )
        found = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not found or not all(file.is_file() for file in found):
            raise SftError(
                f"{path}: no exported trajectories (*.parquet) there; make them with 'medseg "
                "trajectories export STORE FILE --format chat-parquet'"
            )
        files += map(str, found)
    datasets.disable_progress_bars()
    try:
        rows = datasets.Dataset.from_parquet(
            files, cache_dir=str(cache), columns=["messages", "images"]
        )
    except (datasets.exceptions.DatasetGenerationError, ValueError, KeyError) as error:
        raise SftError(
            f"{', '.join(files)}: not conversations as 'medseg trajectories export --format "
            f"chat-parquet' writes them ({error})"
        ) from None
    if not len(rows):
        raise SftError(f"{', '.join(files)}: no conversation in there")
    views = {file: read_chat_view(file) or {} for file in files}
    for file, view in views.items():
        if view != views[files[0]]:
            raise SftError(
                f"{file} was exported with other options than {files[0]} ({view} and "
                f"{views[files[0]]}); export them alike, for a model is played as it was trained"
            )
    return rows, views[files[0]]


def _claim(out: Path, config: SftConfig, resume: bool) -> None:
    """Keep the settings beside the run, or compare them with those that are there."""
    file = out / "config.json"
    settings = json.loads(json.dumps(asdict(config)))
    if not file.exists():
        out.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(settings, indent=1))
        os.replace(part, file)
        return
    if not resume:
        raise SftError(
            f"{out} holds a run; go on with --resume (resume=True) or name another folder"
        )
    there = json.loads(file.read_text())
    differs = [f.name for f in fields(config) if there.get(f.name) != settings[f.name]]
    differs = [name for name in differs if name not in ("device", "loader_workers")]
    if differs:
        raise SftError(
            f"{out} holds a run with other settings ({', '.join(differs)}); name another folder"
        )


def _newest(checkpoints: Path) -> str | None:
    """The newest checkpoint that was written to its end; torn ones are removed."""
    newest: tuple[int, str] | None = None
    for folder in checkpoints.glob("checkpoint-*"):
        if not (folder / WHOLE).exists():
            shutil.rmtree(folder)
            continue
        step = int(folder.name.rpartition("-")[2])
        if newest is None or step > newest[0]:
            newest = step, str(folder)
    return newest[1] if newest else None
