"""A run of GRPO or turn-level PPO, kept in a folder that survives being killed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from medseg_agents.arrays.rllib.train import start_ray
from medseg_agents.evaluation.validation import DRAWN, validation_metrics
from medseg_agents.grpo.algorithm import ChatAlgorithm, ChatConfig, ChatPPOConfig, GRPOConfig
from medseg_agents.grpo.learner import LOWER
from medseg_agents.grpo.metrics import read_result
from medseg_agents.grpo.module import HFChatModule
from medseg_agents.grpo.rollout.samples import TABLE, newest_samples, sample_table
from medseg_agents.grpo.settings import ChatPPORun, ChatRun
from medseg_agents.llm.checkpoint import load_processor, save_view
from medseg_agents.llm.weights.start import start_folder
from medseg_agents.runs.folder import RunFolder
from medseg_agents.runs.gpus import (
    GpuPlan,
    GpuRequest,
    count_gpus,
    describe_devices,
    find_devices,
    plan_gpus,
)
from medseg_agents.runs.log import RunLog
from medseg_agents.runs.names import check_names
from medseg_gym.display.terminal import make_console
from medseg_gym.object_paths import with_absolute_files
from medseg_gym.storage.atomic_write import atomic_folder, atomic_write

_ALGORITHM, _MODEL, _BASE = "algorithm", "model", "base"
_SHOWN = (
    *("return", "dice", "val/dice", "valid_rate", "frac_reward_zero_std", "approx_kl", "entropy"),
    *("grad_norm", "episodes_per_second"),
)


def gpu_plan(run: ChatRun) -> GpuPlan:
    """Decide which part of a run asks for how much of a GPU, see `plan_gpus`.

    Args:
        run: Its settings.
    """
    return plan_gpus(GpuRequest.of(run), *count_gpus())


def chat_config(
    run: ChatRun, gpus: GpuPlan | None = None, start: Path | None = None, **env_options: Any
) -> ChatConfig:
    """Make the RLlib configuration of a run.

    Args:
        run: Its settings.
        gpus: What its parts ask for; None decides it.
        start: Folder of the model instead of the run's own, see `start_folder`.
        **env_options: Further arguments of the environment, which go before the run's own.
    """
    config: ChatConfig = ChatPPOConfig() if isinstance(run, ChatPPORun) else GRPOConfig()
    given = with_absolute_files({"cases": run.cases, **run.env_options()})
    options = {"split": "train", **given, **run.view()}
    env = f"medseg_gym:{run.kind().env_id}"
    config.environment(env=env, env_config={**options, **env_options})
    config.training(lr=run.lr, grad_clip=run.max_grad_norm, num_epochs=run.epochs)
    gpus = gpus or gpu_plan(run)
    config.env_runners(num_env_runners=run.env_runners, num_gpus_per_env_runner=gpus.per_runner)
    if run.num_envs:
        config.env_runners(num_envs_per_env_runner=run.num_envs)
    config.learners(
        num_learners=run.learners,
        num_gpus_per_learner=gpus.per_learner,
        local_gpu_idx=gpus.local_gpu,
    )
    config.debugging(seed=run.seed, log_level="ERROR")
    settings = run.chat
    if start is not None and str(start) != run.model:
        settings |= {"model": str(start), "base": None}
    return config.chat(**settings)


def train_chat(
    config: ChatRun, out: str | Path, resume: bool = False, console: Console | None = None
) -> RunFolder:
    """Train, and keep everything in the folder of the run.

    Args:
        config: Settings of the run.
        out: Folder of the run: `config.json`, `devices.json` (where its parts compute),
            `progress.jsonl`, `progress.csv`, `tensorboard/`, `samples/` (contact sheets of
            validation episodes), `checkpoints/` and at the end `model/`, which plays as
            `llm:RUN/model`.
        resume: Go on from its newest checkpoint; a finished run is left as it is, unless
            it is extended.
        console: For the progress bar.

    Returns:
        The run.

    Raises:
        MedSegError: See `RunFolder.start`; or cases, backbone or model cannot be used.
    """
    RunFolder(out).check(config, resume)
    view = config.view()
    load_processor(config.model, config.base)  # raises before Ray starts
    load = config.kind().load
    check_names(load, config.cases, "train", config.backbone, config.checkpoint, config.reward)
    start_ray()
    gpus = gpu_plan(config)
    run = RunFolder(out)
    run.start(config, view, resume, config.kind().env_id)
    start = start_folder(config.model, config.lora_rank, run.path / _BASE, config.base)
    console = console or make_console(stderr=True)
    newest = run.newest()
    step = 0 if newest is None else newest[0]
    options: dict[str, Any] = {}
    server = None
    if config.shared_backbone:
        from medseg_gym.backbones.remote.ray import serve

        name = f"medseg-{run.path.absolute()}"
        # Runners may have taken every core; a further one would be waited for for ever.
        server = serve(
            name,
            config.backbone,
            config.checkpoint,
            config.device,
            num_cpus=0,
            num_gpus=gpus.backbone,
        )
        options = {"backbone": f"ray:{name}", "checkpoint": None, "device": "cpu"}
    algo: Any = chat_config(config, gpus, start, **options).build_algo()
    try:
        _say_devices(algo, gpus, server, run, console)
        if newest is not None:
            algo.restore_from_path(str((newest[1] / _ALGORITHM).absolute()))
        _train(algo, config, run, step, console)
        # That of an extended run may be from its first end.
        if config.extend or not (run.path / _MODEL).is_dir():
            _save_model(algo, config, run.path, run.path / _MODEL)
    finally:
        algo.stop()
        del server
    return run


def _say_devices(
    algo: ChatAlgorithm, gpus: GpuPlan, server: Any, run: RunFolder, console: Console
) -> None:
    """Print and keep where every part of a run computes, as the parts themselves say."""
    import ray  # not above: what Ray reads when it is imported is set by the modules there

    devices = find_devices(algo, gpus)
    if server is not None:
        devices["segmenter"] = [ray.get(server.device.remote())]
    line = describe_devices(devices, gpus)
    console.print(line, markup=False, highlight=False, soft_wrap=True)
    kept = {"line": line, **devices, "gpus_asked_for": asdict(gpus)}
    atomic_write(run.path / "devices.json", json.dumps(kept, indent=1))


def _train(
    algo: ChatAlgorithm, config: ChatRun, run: RunFolder, step: int, console: Console | None
) -> None:
    every = config.eval_every
    keys = config.kind().load(config.cases, "val").keys[: config.eval_cases] if every else []
    total = config.total(config.iterations)
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
            _validate(algo, keys, log, 0)
        while step < total:
            result = algo.train()
            step = int(result["training_iteration"])
            log.write(step, read_result(result))
            if config.log_samples_every and step % config.log_samples_every == 0:
                log.write_table(step, TABLE, sample_table(newest_samples(algo, config.log_samples)))
            last = step >= total
            if every and (step % every == 0 or last):
                _validate(algo, keys, log, step)
            if step % config.checkpoint_every == 0 or last:
                run.save(step, lambda folder: _save(algo, config, run.path, folder))
                run.prune(config.keep)


def _validate(algo: ChatAlgorithm, keys: Sequence[str], log: RunLog, iteration: int) -> None:
    summaries, sheet = algo.validate_cases(keys, drawn=DRAWN)
    log.write(iteration, validation_metrics(summaries))
    log.write_sheet(iteration, sheet)


def _save(algo: ChatAlgorithm, config: ChatRun, run: Path, folder: Path) -> None:
    algo.save_to_path(str((folder / _ALGORITHM).absolute()))
    _save_model(algo, config, run, folder / _MODEL)


def _save_model(algo: ChatAlgorithm, config: ChatRun, run: Path, folder: Path) -> None:
    """Write the learner's weights as a checkpoint, with the view it is shown beside it."""
    module: HFChatModule = algo.own_module()
    policy = {"history": config.history, "max_new_tokens": config.max_completion_length}
    facts = {"algorithm": type(config).__name__, "run": str(run.absolute())}
    with atomic_folder(folder) as unfinished:
        module.save(unfinished, facts)
        save_view(unfinished, config.view(), policy, config.kind().env_id)
