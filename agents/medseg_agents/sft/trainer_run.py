"""The common part of runs of TRL's trainers: their model, going on, and what they leave."""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from medseg_agents.llm.checkpoint import SavedView, save_view
from medseg_agents.runs.folder import RunFolder
from medseg_agents.runs.names import check_names
from medseg_agents.sft.checkpoints import check_checkpoint, newest_checkpoint, step_of
from medseg_gym.envs.views.chat_kinds import IMAGE_CHAT, chat_kind
from medseg_gym.errors import MedSegError
from medseg_gym.storage.atomic_write import atomic_folder, named_failures


def is_first() -> bool:
    """Return whether this is the first of several training processes; it alone writes the run."""
    return os.environ.get("RANK", "0") == "0"


def check_play(config: Any, shown: SavedView) -> None:
    """Refuse cases to be played while rows are learned from, before the run begins.

    Args:
        config: A run's `PlayOptions`.
        shown: The environment.

    Raises:
        MedSegError: Cases or segmenter cannot be used.
    """
    if config.play_cases:
        load = chat_kind(shown.env_id or IMAGE_CHAT.env_id).load
        check_names(load, config.play_cases, "val", config.play_backbone)


def load_start(config: Any, out: Path, first_does: AbstractContextManager[Any]) -> tuple[Any, ...]:
    """Load the model that a run begins with, its trained weights float32.

    Args:
        config: A run's `StartOptions`, with a `seed` for new adapters.
        out: Folder of the run, for a base that is made first.
        first_does: Context in which the first process goes ahead, and others wait for it.

    Returns:
        The model, its processor, and where it comes from.

    Raises:
        PolicyError: The model cannot be loaded.
    """
    import torch

    from medseg_agents.llm.checkpoint import load_processor
    from medseg_agents.llm.weights.start import load_for_training, start_folder

    with first_does:
        start = start_folder(config.model, config.lora_rank, out / "base", config.base)
    base = config.base if start == Path(config.model) else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model, origin = load_for_training(
            start, config.lora_rank, config.lora_alpha, config.dtype, base
        )
    return model, load_processor(start, base), origin


def train_to_end(trainer: Any, run: RunFolder, total: int, error: type[MedSegError]) -> None:
    """Train from the newest whole checkpoint, or from the start.

    Args:
        trainer: Of TRL.
        run: The run.
        total: Optimiser steps of it.
        error: Raised where a checkpoint cannot be written.
    """
    newest = newest_checkpoint(run.checkpoint_folder)
    if newest is not None:
        check_checkpoint(newest)
        if step_of(newest) >= total:  # of such a one the trainer would take a further step
            trainer._load_from_checkpoint(str(newest))
            return
    trainer.add_callback(_rates_of_this_length())
    with named_failures(run.checkpoint_folder, error):
        trainer.train(resume_from_checkpoint=None if newest is None else str(newest))


def _rates_of_this_length() -> Any:
    """Return a callback that takes rates from the schedule again before the first step.

    A checkpoint's optimiser holds the rate that its run's own length gave the next step; a run that
    was made longer may have another there.
    """
    from transformers import TrainerCallback

    class Rates(TrainerCallback):
        def on_train_begin(self, *args: Any, **options: Any) -> None:
            optimiser: Any = options.get("optimizer")
            scheduler: Any = options.get("lr_scheduler")
            functions = getattr(scheduler, "lr_lambdas", None)
            if optimiser is None or not functions:
                return
            rates = [
                base * function(scheduler.last_epoch)
                for base, function in zip(scheduler.base_lrs, functions, strict=True)
            ]
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate
            scheduler._last_lr = rates

    return Rates()


def save_trained(
    trainer: Any,
    processor: Any,
    run: RunFolder,
    config: Any,
    origin: Any,
    shown: SavedView,
    error: type[MedSegError],
) -> None:
    """Write the finished model, and drop the cache of its rows; the first process alone does.

    Args:
        trainer: Of TRL, at the end of training.
        processor: Of the model.
        run: The run.
        config: Its settings, with `save_dtype`.
        origin: Where the model comes from.
        shown: The environment it is for, how it is shown it, and arguments of its policy.
        error: Raised where it cannot be written.
    """
    from medseg_agents.llm.weights.save import save_model

    if not is_first():
        return
    facts = {"algorithm": type(config).__name__, "run": str(run.path.absolute())}
    with atomic_folder(run.model, error) as unfinished:
        save_model(trainer.model, processor, unfinished, origin, facts, config.save_dtype)
        save_view(unfinished, *shown)
    shutil.rmtree(run.path / "cache", ignore_errors=True)
