"""PPO of Stable-Baselines3 on the native batch."""

from __future__ import annotations

import io
import time
from collections import deque
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from rich.console import Console
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

import medseg_gym  # noqa: F401  (registers the ids)
from medseg_agents.arrays.networks import NetworkConfig
from medseg_agents.arrays.sb3.config import SB3PPOConfig
from medseg_agents.arrays.sb3.policy import PromptPolicy
from medseg_agents.arrays.sb3.vec_env import MedSegVecEnv
from medseg_agents.arrays.starting import prepare_run, start_network
from medseg_agents.evaluation.validation import Validator
from medseg_agents.policies.network import save_network
from medseg_agents.runs.folder import RunFolder, previous_checkpoint
from medseg_agents.runs.log import RunLog
from medseg_gym.cases import load_cases
from medseg_gym.errors import MedSegError
from medseg_gym.storage.atomic_write import atomic_write

_MODEL = "model.zip"


def make_vec_env(config: SB3PPOConfig) -> MedSegVecEnv:
    """The training environment of a configuration."""
    targets = load_cases(config.training_cases, "train").targets
    envs = gym.make_vec(
        "MedSeg-v0",
        num_envs=config.num_envs,
        autoreset_mode="same_step",
        cases=config.training_cases,
        split="train",
        **config.env_options(),
        **config.view(targets),
    )
    return MedSegVecEnv(envs)


def make_model(config: SB3PPOConfig, env: MedSegVecEnv) -> PPO:
    """SB3's PPO with the shared network; train it with `model.learn` or `train_sb3`."""
    return PPO(
        PromptPolicy,
        env,
        learning_rate=lambda remaining: config.learning_rate_at(
            config.progress_at((1 - remaining) * config.total(config.steps))
        ),
        n_steps=config.rollout,
        batch_size=config.minibatch,
        n_epochs=config.epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip,
        ent_coef=config.entropy,
        vf_coef=config.value_weight,
        max_grad_norm=config.max_grad_norm,
        target_kl=config.target_kl,
        policy_kwargs={"network": NetworkConfig.of(config)},
        seed=config.seed,
        device=config.device,
    )


def train_sb3(
    config: SB3PPOConfig, out: str | Path, resume: bool = False, console: Console | None = None
) -> RunFolder:
    """Train, and keep everything in a run's folder.

    Args:
        config: What to do.
        out: Folder of the run.
        resume: Go on from its newest checkpoint.
        console: For the progress bar.

    Returns:
        The run.

    Raises:
        MedSegError: See `RunFolder.start`; or cases, backbone or clone cannot be used.
    """
    run, view = prepare_run(config, out, resume)
    run.start(config, view, resume)
    env = make_vec_env(config)
    newest = run.newest()
    step = 0 if newest is None else newest[0]
    model = make_model(config, env)
    if newest is None:
        env.seed(config.seed)
    else:
        load_parameters(model, newest[1] / _MODEL)
        model.num_timesteps = step
        # Other cases than those that the first part of the run began with.
        env.seed(config.seed + step * config.num_envs)
        torch.manual_seed(config.seed + step)
    total = config.total(config.steps)
    with RunLog(run.path, total, step, console, log_to=config.log_to) as log:
        network: Any = model.policy.network
        if newest is None and config.start is not None:
            start_network(network, config, view)
            save_checkpoint(run, model, config, 0)
        if newest is None and config.clone is not None:
            from medseg_agents.arrays.cloning import clone  # it alone needs trajectories

            clone(network, config, view, log)
            save_checkpoint(run, model, config, 0)
        model.set_logger(Logger(None, []))
        if step < total:
            callback = _RunCallback(run, log, config, view)
            model.learn(total - step, callback, reset_num_timesteps=False)
            save_checkpoint(run, model, config, model.num_timesteps)
            callback.validate()
            if callback.validator is not None:
                callback.validator.close()
    env.close()
    return run


def load_parameters(model: PPO, path: Path) -> None:
    """Take up the parameters of a checkpoint; the pickles beside them in the file are not read.

    Args:
        model: Made from the run's settings.
        path: Of the file that `save_checkpoint` wrote.

    Raises:
        MedSegError: It is missing, damaged, or of another network.
    """
    try:
        model.set_parameters(str(path), exact_match=True)
    except Exception as error:  # zip, pickle and torch each have errors of their own
        why = (str(error).splitlines() or [type(error).__name__])[0]
        hint = previous_checkpoint(path.parent)
        raise MedSegError(f"{path} cannot be resumed from: {why}{hint}") from error


def save_checkpoint(run: RunFolder, model: PPO, config: SB3PPOConfig, step: int) -> Path:
    """Keep SB3's own file, to resume from, and the bare network, to play with."""

    def write(folder: Path) -> None:
        # Through memory: a zip archive on a full disk fails once more when it is collected.
        buffer = io.BytesIO()
        model.save(buffer)
        atomic_write(folder / _MODEL, buffer.getvalue())
        network: Any = model.policy.network
        save_network(network, NetworkConfig.of(config), folder)

    return run.save(step, write)


class _RunCallback(BaseCallback):
    """Logs every rollout; evaluates and saves when it is time."""

    def __init__(
        self, run: RunFolder, log: RunLog, config: SB3PPOConfig, view: dict[str, Any]
    ) -> None:
        super().__init__()
        self.run, self.log, self.config = run, log, config
        self.validator = Validator(config, view) if config.eval_every else None
        self.episodes: deque[dict[str, float]] = deque(maxlen=256)
        self._saved = self._evaluated = 0
        self._ended = time.perf_counter()
        self._rollout = 0.0

    def _on_training_start(self) -> None:
        self._saved = self._evaluated = self.num_timesteps

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info:
                self.episodes.append(info["episode"])
        return True

    def _on_rollout_start(self) -> None:
        self._log_update()
        if self.num_timesteps - self._saved >= self.config.checkpoint_every:
            self._saved = self.num_timesteps
            save_checkpoint(self.run, self._ppo, self.config, self.num_timesteps)
        if self.validator and self.num_timesteps - self._evaluated >= self.config.eval_every:
            self.validate()
        self._began = time.perf_counter()

    def _on_training_end(self) -> None:
        self._log_update()

    def _log_update(self) -> None:
        """Log the update that has just ended, if there was one."""
        now = time.perf_counter()
        values = self.logger.name_to_value
        if self.episodes and "train/entropy_loss" in values:
            mean = {
                name: sum(episode[key] for episode in self.episodes) / len(self.episodes)
                for name, key in (("return", "r"), ("turns", "l"), ("dice", "dice"))
            }
            metrics = {
                key: float(value)
                for key, value in values.items()
                if key.startswith("train/") and key != "train/n_updates"
            }
            metrics["train/entropy"] = -metrics.pop("train/entropy_loss")
            spent = {"time/rollout": self._rollout, "time/update": now - self._ended}
            self.log.write(self.num_timesteps, {**mean, **metrics, **spent})

    def _on_rollout_end(self) -> None:
        self._ppo.ent_coef = self.config.entropy_at(self.config.progress_at(self.num_timesteps))
        self._ended = time.perf_counter()
        self._rollout = self._ended - self._began

    @property
    def _ppo(self) -> PPO:
        assert isinstance(self.model, PPO)
        return self.model

    def validate(self) -> None:
        """Play the validation cases and log the result."""
        if self.validator is not None:
            self._evaluated = self.num_timesteps
            network: Any = self._ppo.policy.network
            metrics, sheet = self.validator(network)
            self.log.write(self.num_timesteps, metrics)
            self.log.write_sheet(self.num_timesteps, sheet)
