"""DAgger on the native batch, kept in a run's folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from rich.console import Console

import medseg_gym  # noqa: F401  (registers the ids)
from medseg_agents.arrays.dagger.config import DaggerConfig
from medseg_agents.arrays.dagger.learner import Learner
from medseg_agents.arrays.dagger.rollout import Rollout
from medseg_agents.arrays.dagger.state_buffer import StateBuffer
from medseg_agents.arrays.localizer.training import train_localizer
from medseg_agents.arrays.networks import NetworkConfig
from medseg_agents.arrays.starting import prepare_run, start_network
from medseg_agents.evaluation.validation import Validator
from medseg_agents.policies.network import load_weights, save_network
from medseg_agents.runs.folder import RunFolder
from medseg_agents.runs.log import RunLog
from medseg_gym import annotators
from medseg_gym.envs.vector import CoreVectorEnv
from medseg_gym.prompts import ArrayCodec


def train_dagger(
    config: DaggerConfig, out: str | Path, resume: bool = False, console: Console | None = None
) -> RunFolder:
    """Train, and keep everything in a run's folder.

    The states to learn from are not kept there: a resumed run begins to gather them anew, with the
    network and the optimiser that it had.

    Args:
        config: What to do.
        out: Folder of the run.
        resume: Go on from its newest checkpoint.
        console: For the progress bar.

    Returns:
        The run.

    Raises:
        MedSegError: See `RunFolder.start`; or cases, backbone, annotator or start cannot be used.
    """
    run, view = prepare_run(config, out, resume)
    annotators.make(config.annotator, ArrayCodec(config.bins, config.tools))
    run.start(config, view, resume)
    envs = make_envs(config, view)
    learner = Learner(config, envs.single_observation_space, envs.single_action_space)
    newest = run.newest()
    step = 0 if newest is None else newest[0]
    if newest is not None:
        load_weights(learner.network, newest[1])
        learner.load(newest[1])
    elif config.start is not None:
        start_network(learner.network, config, view)
    if newest is None and config.localizer_steps:
        localizer = learner.network.localizer
        assert localizer is not None  # the configuration has checked it
        train_localizer(localizer, config, view, run.path, console)
    total = config.total(config.steps)
    try:
        with RunLog(run.path, total, step, console, log_to=config.log_to) as log:
            if step < total:
                _learn(config, run, log, envs, learner, step, total, view)
    finally:
        envs.close()
    return run


def make_envs(config: DaggerConfig, view: dict[str, Any]) -> CoreVectorEnv:
    """Make the training environments of a configuration."""
    envs = gym.make_vec(
        "MedSeg-v0",
        num_envs=config.num_envs,
        autoreset_mode="same_step",
        cases=config.training_cases,
        split="train",
        **config.env_options(),
        **view,
    ).unwrapped
    assert isinstance(envs, CoreVectorEnv)
    return envs


def _learn(
    config: DaggerConfig,
    run: RunFolder,
    log: RunLog,
    envs: CoreVectorEnv,
    learner: Learner,
    step: int,
    total: int,
    view: dict[str, Any],
) -> None:
    buffer = StateBuffer(config.buffer)
    # Other cases than those that the first part of the run began with.
    rollout = Rollout(config, envs, learner, buffer, config.seed + step * config.num_envs)
    generator = np.random.default_rng([config.seed, step])
    validate = Validator(config, view) if config.eval_every else None

    def save() -> None:
        def write(folder: Path) -> None:
            save_network(learner.network, NetworkConfig.of(config), folder)
            learner.save(folder)

        run.save(step, write)

    saved = evaluated = step
    try:
        while step < total:
            began = time.perf_counter()
            progress = config.progress_at(step)
            beta = config.beta_at(progress)
            while True:
                rollout.play(config.rollout, beta)
                step += config.batch
                if len(buffer):  # else no episode has ended yet
                    break
            played = time.perf_counter()
            losses: dict[str, list[float]] = {}
            for _ in range(config.updates):
                batch = buffer.draw(config.minibatch, generator)
                for name, value in learner.update(batch, progress).items():
                    losses.setdefault(name, []).append(value)
            row = {name: float(np.mean(values)) for name, values in losses.items()}
            log.write(
                step,
                {
                    **rollout.metrics(),
                    **row,
                    "train/beta": beta,
                    "train/learning_rate": config.learning_rate_at(progress),
                    "train/states": len(buffer),
                    "time/annotator": rollout.seconds_asking,
                    "time/rollout": played - began,
                    "time/update": time.perf_counter() - played,
                },
            )
            if step - saved >= config.checkpoint_every or step >= total:
                saved = step
                save()
            if validate and (step - evaluated >= config.eval_every or step >= total):
                evaluated = step
                metrics, sheet = validate(learner.network)
                log.write(step, metrics)
                log.write_sheet(step, sheet)
    finally:
        if validate:
            validate.close()
