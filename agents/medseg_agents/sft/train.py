"""Supervised fine-tuning of a vision-language model on exported trajectories, with TRL.

The loss is on the assistant's turns only, with their images, full weights or LoRA. A run is a
folder: `config.json`, `checkpoints/`, `progress.jsonl`, `progress.csv`, `tensorboard/` and at the
end `model/`, which is a policy spec (`llm:RUN/model`) that is shown the environment as the
trajectories were. A run killed at any moment goes on from its newest whole checkpoint, with the
same weights in the end as one that was left alone.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg_agents.llm.checkpoint import SavedView, kind_to_play
from medseg_agents.runs.folder import RunFolder
from medseg_agents.sft.config import SftConfig, SftError
from medseg_agents.sft.data import leave_out_spelled, load_conversations
from medseg_agents.sft.tiny_start import build_start
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


def train_sft(
    config: SftConfig, out: str | Path, resume: bool = False, quiet: bool = False
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
        SftError: The folder holds a run already (without `resume`) or one with other settings, or
            trajectories are missing, are no conversations or were not all shown alike.
        PolicyError: The model cannot be loaded, or was trained for another environment than that
            of the trajectories.
    """
    out = Path(out)
    run = RunFolder(out)
    finished = run.model
    if is_first():  # killed before it began, a run is begun
        resume = resume and run.config_file.exists()
        run.check(config, resume, SftError)
    if finished.is_dir() and not config.extend:
        return finished
    rows, shown = load_conversations(config.trajectories, out / "cache")
    held_out = _held_out(config, out / "cache", shown)
    check_play(config, shown)
    if config.model != "tiny":
        kind_to_play(config.model, shown.env_id)
    if is_first():
        run.start(config, None, resume, error=SftError)
    start = config
    if config.model == "tiny":
        with arguments(config, out).main_process_first():
            if is_first():
                build_start(out / "start", rows, shown, config.seed)
        start = replace(config, model=str(out / "start"), base=None)
    model, processor, origin = load_start(start, out, arguments(config, out).main_process_first())
    rows = leave_out_spelled(rows, processor, ("messages",), SftError)
    from medseg_agents.sft.played_cases import played_cases  # imports torch

    play = played_cases(config, processor, shown) if is_first() else None
    trainer = make_trainer(config, out, model, processor, rows, held_out, quiet, play)
    total = config.total(steps_of(config, len(rows), trainer.args.world_size))
    train_to_end(trainer, run, total, SftError)
    save_trained(trainer, processor, run, config, origin, shown, SftError)
    return finished


def _held_out(config: SftConfig, cache: Path, shown: SavedView) -> Any:
    """Load the rows whose loss is logged; None for none."""
    if not config.validation:
        return None
    rows, other = load_conversations(config.validation, cache)
    if other.env_id != shown.env_id:
        raise SftError(
            f"the validation rows are turns of {other.env_id}, and the model is trained for "
            f"{shown.env_id}"
        )
    return rows


def make_trainer(
    config: SftConfig,
    out: Path,
    model: Any,
    processor: Any,
    rows: Any,
    held_out: Any = None,
    quiet: bool = True,
    play: PlayedCases | None = None,
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
        play: Plays validation cases at every checkpoint.
    """
    import torch
    from transformers import PrinterCallback
    from trl import SFTTrainer

    from medseg_agents.arrays.optimisers import MuonWithAdamW, rate_over_run
    from medseg_agents.sft.logs import LogRun, WholeCheckpoints

    processor.tokenizer.padding_side = "right"
    args = arguments(config, out, held_out is not None)
    steps = set_length(args, config, len(rows))
    trainer: Any = SFTTrainer(
        model=model,
        args=args,
        train_dataset=rows,
        eval_dataset=held_out,
        processing_class=processor,
        callbacks=[WholeCheckpoints(), LogRun(out, quiet, config.log_to, play)],
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
            config.scheduled(steps),
            config.warmup,
            config.final_rate,
        ),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def arguments(config: SftConfig, out: Path, validates: bool = False) -> Any:
    """Make TRL's `SFTConfig` for a configuration.

    Args:
        config: See `SftConfig`.
        out: Folder of the run.
        validates: Whether a loss on other rows is computed.
    """
    from trl import SFTConfig as TrlConfig

    return TrlConfig(
        assistant_only_loss=True,
        max_length=config.max_length,
        prediction_loss_only=True,
        **trainer_arguments(config, out, validates),
    )
