"""PPO of RLlib on the native batch, kept in a run's folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from medseg_agents.arrays.networks import NetworkConfig, PromptNetwork
from medseg_agents.arrays.rllib.callbacks import DICE
from medseg_agents.arrays.rllib.config import RLlibPPOConfig
from medseg_agents.arrays.rllib.ppo import ppo_config
from medseg_agents.arrays.starting import prepare_run, start_network
from medseg_agents.evaluation.validation import Validator
from medseg_agents.policies.network import save_network
from medseg_agents.runs.folder import RunFolder
from medseg_agents.runs.gpus import backbone_share, count_gpus
from medseg_agents.runs.log import RunLog
from medseg_agents.runs.runner_errors import raise_failures
from medseg_gym.envs.views.array import ArrayView
from medseg_gym.parallel.ray_address import check_address

_ALGORITHM = "algorithm"
_MODULE = "default_policy"
_PREFIX = "network."


def start_ray() -> None:
    """Start a quiet local Ray, unless this process is already part of one."""
    import ray

    # It says at every start that the new API stack is in use, as if that were news.
    logging.getLogger("ray.rllib.algorithms.algorithm_config").setLevel(logging.ERROR)
    if not ray.is_initialized():
        check_address(None)
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)


def train_rllib(
    config: RLlibPPOConfig, out: str | Path, resume: bool = False, console: Console | None = None
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
    start_ray()
    run.start(config, view, resume)
    server = None
    options: dict[str, Any] = {}
    if config.shared_backbone:
        from medseg_gym.backbones.remote.ray import serve

        name = f"medseg-{run.path.absolute()}"
        # Runners may have taken every core; one more that is waited for would wait for ever.
        gpus = backbone_share(config.device, count_gpus()[1])
        server = serve(
            name, config.backbone, config.checkpoint, config.device, num_cpus=0, num_gpus=gpus
        )
        options = {"backbone": f"ray:{name}", "checkpoint": None, "device": "cpu"}
    newest = run.newest()
    step = 0 if newest is None else newest[0]
    algo = ppo_config(config, **options).build_algo()
    if newest is not None:
        try:
            algo.restore_from_path(str((newest[1] / _ALGORITHM).absolute()))
        except BaseException:
            algo.stop()
            raise
    # A network beside the algorithm's own, to clone into, to validate and to keep.
    shown = ArrayView(**view)
    network = PromptNetwork(shown.observation_space, shown.action_space, NetworkConfig.of(config))
    validate = Validator(config, view) if config.eval_every else None
    try:
        total = config.total(config.steps)
        with RunLog(run.path, total, step, console, log_to=config.log_to) as log:
            if newest is None and config.start is not None:
                start_network(network, config, view)
                _give_weights(algo, network)
                _save(run, algo, network, config, 0)
            if newest is None and config.clone is not None:
                from medseg_agents.arrays.cloning import clone  # it alone needs trajectories

                clone(network, config, view, log)
                _give_weights(algo, network)
                _save(run, algo, network, config, 0)
            saved = evaluated = step
            while step < total:
                result = algo.train()
                step = int(result["num_env_steps_sampled_lifetime"])
                log.write(step, read_result(result))
                if validate and (step - evaluated >= config.eval_every or step >= total):
                    evaluated = step
                    _take_weights(algo, network)
                    metrics, sheet = validate(network)
                    log.write(step, metrics)
                    log.write_sheet(step, sheet)
                if step - saved >= config.checkpoint_every or step >= total:
                    saved = step
                    _save(run, algo, network, config, step)
            raise_failures([algo.eval_env_runner_group], at_the_end=True)
    finally:
        algo.stop()
        if validate:
            validate.close()
        del server
    return run


def read_result(result: dict[str, Any]) -> dict[str, float]:
    """Return the metrics of an RLlib result that the log keeps, under the log's names."""
    played, learned = result["env_runners"], result["learners"].get(_MODULE, {})
    timers = result.get("timers", {})
    names = {
        "return": played.get("episode_return_mean"),
        "turns": played.get("episode_len_mean"),
        "dice": played.get(DICE),
        "train/entropy": learned.get("entropy"),
        "train/policy_loss": learned.get("policy_loss"),
        "train/value_loss": learned.get("vf_loss"),
        "train/grad_norm": learned.get("gradients_default_optimizer_global_norm"),
        "train/explained_variance": learned.get("vf_explained_var"),
        "time/rollout": timers.get("env_runner_sampling_timer"),
        "time/update": timers.get("learner_update_timer"),
    }
    return {name: float(value) for name, value in names.items() if value is not None}


def _take_weights(algo: Any, network: PromptNetwork) -> None:
    state = algo.learner_group.get_weights()[_MODULE]
    network.load_state_dict(
        {
            key.removeprefix(_PREFIX): torch.as_tensor(value)
            for key, value in state.items()
            if key.startswith(_PREFIX)
        }
    )


def _give_weights(algo: Any, network: PromptNetwork) -> None:
    state = {f"{_PREFIX}{k}": v.detach().cpu().numpy() for k, v in network.state_dict().items()}
    algo.learner_group.set_weights({_MODULE: state})
    algo.env_runner_group.sync_weights(
        from_worker_or_learner_group=algo.learner_group, inference_only=True, timeout_seconds=60
    )


def _save(
    run: RunFolder, algo: Any, network: PromptNetwork, config: RLlibPPOConfig, step: int
) -> None:
    _take_weights(algo, network)

    def write(folder: Path) -> None:
        algo.save_to_path(str((folder / _ALGORITHM).absolute()))
        save_network(network, NetworkConfig.of(config), folder)

    run.save(step, write)
