"""RLlib's PPO, configured for the native vector environment."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Ray reads these when it is imported. A driver without GPUs keeps its own view of them, and the
# daemons' chatter is not for the user of a trainer.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import gymnasium as gym
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from medseg_agents.arrays.networks import NetworkConfig
from medseg_agents.arrays.rllib.callbacks import MedSegCallback, check_autoreset
from medseg_agents.arrays.rllib.config import RLlibPPOConfig
from medseg_agents.arrays.rllib.module import PromptModule
from medseg_agents.runs.algorithm_state import load_state, refuse_pickles, save_state
from medseg_agents.runs.folder import read_json
from medseg_agents.runs.runner_errors import TellsErrors, raise_failures
from medseg_gym.backbones.registry import is_service
from medseg_gym.cases import load_cases
from medseg_gym.object_paths import absolute_files, with_absolute_files
from medseg_gym.storage.atomic_write import atomic_write

ENV = "medseg_gym:MedSeg-v0"
"""With the package's name, so that remote runners import what registers the id."""


_SETTINGS = "settings.json"


class PromptPPO(PPO):
    """RLlib's PPO whose checkpoints hold numbers and our own settings, and no pickle."""

    @classmethod
    def get_default_config(cls) -> PromptPPOConfig:
        """The configuration that Tune begins with."""
        return PromptPPOConfig()

    def step(self) -> dict[str, Any]:
        """Train for an iteration, as RLlib does.

        Raises:
            MedSegError: A runner met an error that a restart would not mend.
        """
        try:
            return super().step()
        finally:
            raise_failures([self.env_runner_group, self.eval_env_runner_group])

    def save_to_path(self, path: Any = None, **options: Any) -> str:
        """Write a checkpoint for `restore`.

        Args:
            path: Of its folder.
            **options: RLlib's own, which say how it would write.
        """
        folder = Path(path)
        settings: Any = self.config
        save_state(self, folder)
        atomic_write(folder / _SETTINGS, settings.run_settings)
        return str(folder)

    def restore_from_path(self, path: Any, **options: Any) -> None:
        """Take up a checkpoint of `save_to_path`; nothing in it is ever run.

        Args:
            path: Of its folder.
            **options: RLlib's own.
        """
        load_state(self, Path(path))
        for group in (self.env_runner_group, self.eval_env_runner_group):
            if group is not None:  # or remote runners play the first iteration as they began
                group.sync_weights(
                    from_worker_or_learner_group=self.learner_group,
                    inference_only=True,
                    timeout_seconds=60,
                )


class PromptEnvRunner(TellsErrors, SingleAgentEnvRunner):
    """RLlib's runner, which tells errors of a user's own code."""


class PromptPPOConfig(PPOConfig):
    """RLlib's configuration, which knows the settings it was made from.

    Args:
        algo_class: What it builds.
    """

    def __init__(self, algo_class: type | None = None) -> None:
        self.run_settings = "{}"
        super().__init__(algo_class=algo_class or PromptPPO)


def ppo_config(config: RLlibPPOConfig | None = None, **env_options: Any) -> PPOConfig:
    """An RLlib configuration: `.build_algo()` it, change it, or give it to Tune.

    Args:
        config: What the command line offers.
        **env_options: More arguments of the environment (see `EnvOptions`), which go before the
            configuration's own.

    Raises:
        MedSegError: An autoreset mode that RLlib would learn from wrongly.

    Example:
        >>> from medseg_agents.arrays.rllib import RLlibPPOConfig, ppo_config
        >>> algo = ppo_config(RLlibPPOConfig(env_runners=2)).build_algo()  # doctest: +SKIP
        >>> algo.train()["env_runners"]["dice"]  # doctest: +SKIP
    """
    config = config or RLlibPPOConfig()
    check_autoreset(env_options.get("autoreset_mode", "next_step"))
    targets = load_cases(config.cases, "train").targets
    options = {
        "cases": absolute_files(config.training_cases),
        "split": "train",
        **with_absolute_files(config.env_options()),
        **config.view(targets),
        **env_options,
    }
    runners, learners = max(1, config.env_runners), max(1, config.learners)
    end = config.scheduled(config.steps)
    # Any: RLlib takes schedules here, its annotation knows numbers alone.
    entropy: Any = [[0, config.entropy], [end, config.final_entropy]]
    rates = [[0, config.learning_rate], [end, config.learning_rate_at(1.0)]]
    made = PromptPPOConfig()
    made.run_settings = config.to_json()
    return (
        made.environment(ENV, env_config=options)
        .env_runners(
            env_runner_cls=PromptEnvRunner,
            num_env_runners=config.env_runners,
            num_envs_per_env_runner=config.num_envs,
            gym_env_vectorize_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT,
        )
        .learners(num_learners=config.learners)
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=PromptModule,
                model_config={
                    **asdict(NetworkConfig.of(config)),
                    "tools": tuple(options["tools"]),
                },
            )
        )
        .training(
            train_batch_size_per_learner=config.batch * runners // learners,
            minibatch_size=config.minibatch,
            num_epochs=config.epochs,
            lr=rates,
            gamma=config.gamma,
            lambda_=config.gae_lambda,
            clip_param=config.clip,
            entropy_coeff=entropy,
            vf_loss_coeff=config.value_weight,
            vf_clip_param=float("inf"),
            use_kl_loss=False,
            grad_clip=config.max_grad_norm,
            grad_clip_by="global_norm",
        )
        .evaluation(
            evaluation_interval=1 if config.eval_runners else None,
            evaluation_num_env_runners=config.eval_runners,
            evaluation_parallel_to_training=bool(config.eval_runners),
            evaluation_duration="auto" if config.eval_runners else 1,
            evaluation_config={
                "explore": False,
                "env_config": {
                    **options,
                    "cases": absolute_files(config.cases),
                    "split": "val",
                },
            },
        )
        .callbacks(MedSegCallback)
        .debugging(seed=config.seed, log_level="ERROR")
    )


def restore(path: str | Path) -> PromptPPO:
    """An algorithm from its checkpoint, right from its first iteration on.

    It is built from the settings in the checkpoint; nothing in the folder is ever run. A segmenting
    service that they name is asked without a key: name it in `ppo_config` to send one.

    Args:
        path: Of the folder that `PromptPPO.save_to_path` wrote.

    Raises:
        MedSegError: It is no such folder, it is damaged, or it is RLlib's own, which could run
            code.
    """
    folder = Path(path).absolute()
    refuse_pickles(folder)
    config = RLlibPPOConfig.from_mapping(read_json(folder / _SETTINGS))
    options = {"backbone_options": {"key": ""}} if is_service(config.backbone) else {}
    algo = ppo_config(config, **options).build_algo()
    assert isinstance(algo, PromptPPO)  # RLlib's annotation is that of every algorithm
    algo.restore_from_path(str(folder))
    return algo
