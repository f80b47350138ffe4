"""Direct preference optimisation (Rafailov et al. 2023) with TRL's `DPOTrainer`.

The reference is the model that the run starts from, as it is then: a copy of it, or of the
adapters that are trained. A run is a folder like that of a supervised one, and goes on after a kill
likewise.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg_agents.dpo.config import DpoConfig, DpoError
from medseg_agents.llm.checkpoint import SavedView, kind_to_play, read_view
from medseg_agents.runs.folder import RunFolder
from medseg_agents.sft.data import leave_out_spelled, load_rows
from medseg_agents.sft.trainer_arguments import set_length, steps_of, trainer_arguments
from medseg_agents.sft.trainer_run import (
    check_play,
    is_first,
    load_start,
    save_trained,
    train_to_end,
)

if TYPE_CHECKING:
    from medseg_agents.sft.played_cases import PlayedCases


def train_dpo(
    config: DpoConfig, out: str | Path, resume: bool = False, quiet: bool = False
) -> Path:
    """Train, or go on training.

    Args:
        config: Settings of the run.
        out: Folder of the run.
        resume: Go on with the run in `out`; a finished one is left as it is, unless it is extended.
        quiet: No progress bar.

    Returns:
        Folder of the finished model.

    Raises:
        DpoError: The folder holds a run already (without `resume`) or one with other settings, or
            pairs are missing, are none or were shown otherwise than the model is.
        PolicyError: The model cannot be loaded.
    """
    out = Path(out)
    run = RunFolder(out)
    finished = run.model
    if is_first():  # killed before it began, a run is begun
        resume = resume and run.config_file.exists()
        run.check(config, resume, DpoError)
    if finished.is_dir() and not config.extend:
        return finished
    rows, shown = load_pairs(config.pairs, out / "cache")
    held_out = load_pairs(config.validation, out / "cache")[0] if config.validation else None
    policy = _check_view(config, shown)
    check_play(config, shown)
    if is_first():
        run.start(config, None, resume, error=DpoError)
    model, processor, origin = load_start(config, out, arguments(config, out).main_process_first())
    rows = leave_out_spelled(rows, processor, ("prompt", "chosen", "rejected"), DpoError)
    from medseg_agents.sft.played_cases import played_cases  # imports torch

    shown = shown._replace(policy=policy)
    play = played_cases(config, processor, shown) if is_first() else None
    trainer = make_trainer(config, out, model, processor, rows, held_out, quiet, play)
    total = config.total(steps_of(config, len(rows), trainer.args.world_size))
    train_to_end(trainer, run, total, DpoError)
    save_trained(trainer, processor, run, config, origin, shown, DpoError)
    return finished


def load_pairs(paths: Sequence[str], cache: Path) -> tuple[Any, SavedView]:
    """Load pairs as a `datasets.Dataset`, and how they were shown.

    Args:
        paths: Files, or folders whose parquet files are all taken.
        cache: Folder for the memory-mapped copy that `datasets` makes.

    Raises:
        DpoError: A path that is not there, holds no pairs, or pairs that were shown differently.
    """
    return load_rows(
        paths,
        cache,
        ("prompt", "chosen", "rejected", "images"),
        "pairs",
        "medseg trajectories pairs STORE FILE.parquet",
        DpoError,
    )


def _check_view(config: DpoConfig, pairs: SavedView) -> dict[str, Any]:
    """Compare the view of the pairs with the model's; returns the arguments of its policy."""
    kind_to_play(config.model, pairs.env_id)
    shown, policy, _ = read_view(config.model)
    view = pairs.view
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
    play: PlayedCases | None = None,
) -> Any:
    """Make TRL's `DPOTrainer` for a configuration; arguments are those of `sft.train`."""
    from transformers import PrinterCallback
    from trl import DPOTrainer

    from medseg_agents.sft.logs import LogRun, WholeCheckpoints

    # Given none, TRL would read one from the folder that the model's configuration names, which is
    # the base where adapters were folded in. Of a model with adapters it copies these.
    reference = None if hasattr(model, "peft_config") else copy.deepcopy(model)
    args = arguments(config, out, held_out is not None)
    set_length(args, config, len(rows))
    trainer: Any = DPOTrainer(
        model=model,
        ref_model=reference,
        args=args,
        train_dataset=rows,
        eval_dataset=held_out,
        processing_class=processor,
        callbacks=[WholeCheckpoints(), LogRun(out, quiet, config.log_to, play)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def arguments(config: DpoConfig, out: Path, validates: bool = False) -> Any:
    """Make TRL's `DPOConfig` for a configuration; arguments are those of `sft.train`."""
    from trl import DPOConfig as TrlConfig

    schedules = {"constant": "constant_with_warmup"}
    return TrlConfig(
        loss_type=[config.loss_type],
        beta=config.beta,
        label_smoothing=config.label_smoothing,
        max_length=None,  # a conversation that is cut has lost images or the call itself
        weight_decay=config.weight_decay,
        lr_scheduler_type=schedules.get(config.schedule, config.schedule),
        warmup_steps=config.warmup,
        **trainer_arguments(config, out, validates),
    )
