"""A run of GRPO or turn-level PPO, kept in a folder that survives being killed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from medseg_agents.arrays.rllib.train import start_ray
from medseg_agents.evaluation.validation import validation_metrics
from medseg_agents.grpo.algorithm import ChatAlgorithm, ChatConfig, ChatPPOConfig, GRPOConfig
from medseg_agents.grpo.learner import LOWER
from medseg_agents.grpo.metrics import read_result
from medseg_agents.grpo.module import HFChatModule
from medseg_agents.grpo.rollout.samples import TABLE, newest_samples, sample_table
from medseg_agents.grpo.settings import ChatPPORun, ChatRun
from medseg_agents.llm.checkpoint import load_processor, save_view
from medseg_agents.runs.folder import RunFolder
from medseg_agents.runs.length import check_length
from medseg_agents.runs.log import RunLog
from medseg_gym.cases import load_cases
from medseg_gym.storage.atomic_write import atomic_folder, atomic_write

_ALGORITHM, _MODEL = "algorithm", "model"
_FREE = (
    *("eval_every", "eval_cases", "checkpoint_every", "keep", "device", "num_envs", "env_runners"),
    *("learners", "gpus_per_runner", "gpus_per_learner", "shared_backbone", "micro_batch"),
    *("vllm_python", "vllm_options", "vllm_timeout", "vllm_sleep"),
    *("log_to", "log_samples_every", "log_samples"),
    *("shard", "extend"),
)
"""Settings that a resumed run may have changed: machines, evaluation, checkpoints and logging."""
_DRAWN = 6
_SHOWN = (
    *("return", "dice", "val/dice", "valid_rate", "frac_reward_zero_std", "approx_kl", "entropy"),
    *("grad_norm", "episodes_per_second"),
)


def chat_config(run: ChatRun, **env_options: Any) -> ChatConfig:
    """Make the RLlib configuration of a run.

    Args:
        run: Its settings.
        **env_options: Further arguments of the environment, which go before the run's own.
    """
    config: ChatConfig = ChatPPOConfig() if isinstance(run, ChatPPORun) else GRPOConfig()
    options = {"cases": run.cases, "split": "train", **run.env_options(), **run.view()}
    config.environment(env_config={**options, **env_options})
    config.training(lr=run.lr, grad_clip=run.max_grad_norm, num_epochs=run.epochs)
    config.env_runners(num_env_runners=run.env_runners, num_gpus_per_env_runner=run.gpus_per_runner)
    if run.num_envs:
        config.env_runners(num_envs_per_env_runner=run.num_envs)
    config.learners(num_learners=run.learners, num_gpus_per_learner=run.gpus_per_learner)
    config.debugging(seed=run.seed, log_level="ERROR")
    return config.chat(**run.chat)


def train_chat(
    config: ChatRun, out: str | Path, resume: bool = False, console: Console | None = None
) -> RunFolder:
    """Train, and keep everything in the folder of the run.

    Args:
        config: Settings of the run.
        out: Folder of the run: `config.json`, `progress.jsonl`, `progress.csv`, `tensorboard/`,
            `samples/` (contact sheets of validation episodes), `checkpoints/` and at the end
            `model/`, which plays as `llm:RUN/model`.
        resume: Go on from its newest checkpoint; a finished run is left as it is, unless it is
            extended.
        console: For the progress bar.

    Returns:
        The run.

    Raises:
        MedSegError: See `RunFolder.start`; or cases, backbone or model cannot be used.
    """
    view = config.view()
    load_processor(config.model)  # raises before Ray starts
    start_ray()
    run = RunFolder(out)
    check_length(config, run, resume)
    run.start(config, view, resume, "MedSegChat-v0", _FREE)
    newest = run.newest()
    step = 0 if newest is None else newest[0]
    options: dict[str, Any] = {}
    server = None
    if config.shared_backbone:
        from medseg_gym.backbones.remote.ray import serve

        name = f"medseg-{run.path.absolute()}"
        # Runners may have taken every core; a further one would be waited for for ever.
        server = serve(name, config.backbone, config.checkpoint, config.device, num_cpus=0)
        options = {"backbone": f"ray:{name}", "checkpoint": None, "device": "cpu"}
    algo: Any = chat_config(config, **options).build_algo()
    try:
        if newest is not None:
            algo.restore_from_path(str((newest[1] / _ALGORITHM).absolute()))
        _train(algo, config, run, step, console)
        # That of an extended run may be from its first end.
        if config.extend or not (run.path / _MODEL).is_dir():
            _save_model(algo, config, run.path / _MODEL)
    finally:
        algo.stop()
        del server
    return run


def _train(
    algo: ChatAlgorithm, config: ChatRun, run: RunFolder, step: int, console: Console | None
) -> None:
    every = config.eval_every
    keys = load_cases(config.cases, "val").keys[: config.eval_cases] if every else []
    total = config.total_iterations
    with RunLog(
        run.path,
        total,
        step,
        console,
        _SHOWN,
        "iterations",
        config.log_to,
        LOWER,
    ) as log:
        if step == 0 and every:
            log.write(0, _validate(algo, keys, run.path, 0))
        while step < total:
            result = algo.train()
            step = int(result["training_iteration"])
            log.write(step, read_result(result))
            if config.log_samples_every and step % config.log_samples_every == 0:
                log.write_table(step, TABLE, sample_table(newest_samples(algo, config.log_samples)))
            last = step >= total
            if every and (step % every == 0 or last):
                log.write(step, _validate(algo, keys, run.path, step))
            if step % config.checkpoint_every == 0 or last:
                run.save(step, lambda folder: _save(algo, config, folder))
                run.prune(config.keep)


def _validate(
    algo: ChatAlgorithm, keys: Sequence[str], out: Path, iteration: int
) -> dict[str, float]:
    records, sheet = algo.validate_cases(keys, drawn=_DRAWN)
    if sheet:
        file = out / "samples" / f"iteration-{iteration:05d}.png"
        atomic_write(file, sheet)
    return validation_metrics(records)


def _save(algo: ChatAlgorithm, config: ChatRun, folder: Path) -> None:
    algo.save_to_path(str((folder / _ALGORITHM).absolute()))
    _save_model(algo, config, folder / _MODEL)


def _save_model(algo: ChatAlgorithm, config: ChatRun, folder: Path) -> None:
    """Write the learner's weights as a checkpoint, with the view it is shown beside it."""
    module: HFChatModule = algo.own_module()
    policy = {"history": config.history, "max_new_tokens": config.max_completion_length}
    with atomic_folder(folder) as unfinished:
        module.save(unfinished)
        save_view(unfinished, config.view(), policy)
