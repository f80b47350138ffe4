"""Start a network from what another run has trained."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from medseg_agents.arrays.config import ArraySettings, NetworkSize
from medseg_agents.arrays.networks import NetworkConfig, PromptNetwork
from medseg_agents.policies.network import load_weights, read_network_config
from medseg_agents.runs.folder import RunFolder, find_checkpoint
from medseg_agents.runs.names import check_names
from medseg_gym.cases import load_cases
from medseg_gym.errors import PolicyError

_KEPT = {"stop_bias"}
"""Settings of the network that say nothing once it is trained."""


def prepare_run(
    config: ArraySettings, out: str | Path, resume: bool
) -> tuple[RunFolder, dict[str, Any]]:
    """Check what a run was given before it claims its folder.

    Args:
        config: Of the run.
        out: Its folder.
        resume: Go on from its newest checkpoint.

    Returns:
        The run, not yet started, and its view (see `ArraySettings.view`).

    Raises:
        MedSegError: See `RunFolder.check`; or cases, backbone, reward or start cannot be used.
    """
    run = RunFolder(out)
    run.check(config, resume)
    source = check_names(
        load_cases, config.cases, "train", config.backbone, config.checkpoint, config.reward
    )
    view = config.view(source.targets)
    if not resume:
        if config.localizer and not config.start and not getattr(config, "localizer_steps", 0):
            raise PolicyError(
                "nothing would train the localizer: start from a run that has one (--start), or "
                "give --localizer-steps to medseg train dagger"
            )
        check_start(config, view)
    return run, view


def check_start(config: ArraySettings, view: dict[str, Any]) -> None:
    """Refuse a start whose view or network is another.

    Args:
        config: Of the run that is to start.
        view: See `ArraySettings.view`.

    Raises:
        PolicyError: It names every setting that differs, with the option to give; or there is no
            such checkpoint.
    """
    if config.start is None:
        return
    folder, seen = find_checkpoint(config.start)
    before, now = dict(seen["view"]), dict(view)
    if seen["env_id"] != "MedSeg-v0":
        raise PolicyError(f"{config.start} plays {seen['env_id']}, not MedSeg-v0")
    trained, wanted = read_network_config(folder), NetworkConfig.of(config)
    for one in fields(NetworkSize):
        if one.name not in _KEPT:
            before[one.name], now[one.name] = getattr(trained, one.name), getattr(wanted, one.name)
    differing = [name for name in now if before.get(name) != now[name]]
    if "targets" in differing:
        raise PolicyError(
            f"{config.start} was trained on other targets ({len(before.get('targets', ()))}, not "
            f"{len(now['targets'])}): start from a run on the same --cases"
        )
    if differing:
        flags = " ".join(f"--{n.replace('_', '-')} {_given(before.get(n))}" for n in differing)
        raise PolicyError(f"{config.start} was trained with other settings: give {flags}")


def start_network(network: PromptNetwork, config: ArraySettings, view: dict[str, Any]) -> None:
    """Give a network the weights of the run that `config.start` names.

    Args:
        network: Changed in place.
        config: Of the run; `start` is given.
        view: See `ArraySettings.view`.

    Raises:
        PolicyError: See `check_start`; or the checkpoint is damaged.
    """
    assert config.start is not None
    check_start(config, view)
    folder, _ = find_checkpoint(config.start)
    load_weights(network, folder)


def _given(value: Any) -> str:
    return ",".join(value) if isinstance(value, list | tuple) else str(value)
