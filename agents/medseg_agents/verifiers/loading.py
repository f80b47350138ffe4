"""`load_environment`, for programs that need no configuration file."""

from __future__ import annotations

from typing import Any

import verifiers.v1 as vf

from medseg_agents.verifiers.env import MedSegEnv, MedSegEnvConfig
from medseg_agents.verifiers.taskset import PLUGIN, MedSegTasksetConfig
from medseg_gym.errors import PolicyError


def load_environment(**options: Any) -> MedSegEnv:
    """Make the environment of `verifiers`.

    Args:
        **options: Fields of `MedSegTasksetConfig` and `MedSegEnvConfig` by their names,
            `native_tools` and `retries` of `MedSegHarnessConfig`, and any option of the chat
            environment.

    Returns:
        An environment for `verifiers`' own runners, whose `config` goes into an `EvalConfig`.

    Raises:
        MedSegError: An option that cannot be used.
    """
    harness = {name: options.pop(name) for name in ("native_tools", "retries") if name in options}
    if harness and "agent" in options:
        raise PolicyError(
            f"{', '.join(harness)} belongs to the harness: put it into agent={{'harness': ...}}, "
            "or leave agent out"
        )
    own = {name: options.pop(name) for name in MedSegEnvConfig.model_fields if name in options}
    taskset = {
        name: options.pop(name) for name in MedSegTasksetConfig.model_fields if name in options
    }
    own.setdefault("id", "")
    own["taskset"] = {
        **taskset,
        "id": PLUGIN,
        "options": {**taskset.get("options", {}), **options},
    }
    if harness:
        own["agent"] = {"harness": {"id": PLUGIN, **harness}}
    config = vf.resolve_env_config(own)
    env = vf.load_environment(config)
    assert isinstance(env, MedSegEnv)
    return env
