"""The chat environments for `verifiers`: a taskset of cases, an environment, and a harness.

`verifiers` loads them as the plugin `medseg-chat`; `load_environment` makes the environment in a
program. Every task is a case, every attempt a conversation of its own, and all of them play on one
segmenter (`medseg_agents.chat_episodes`). Extra `verifiers`, in a Python environment of its own:
`docs/how-to/hubs.md` says why.
"""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("verifiers") is None:
    raise ModuleNotFoundError(
        'medseg_agents.verifiers needs verifiers: pip install "medseg-gym[verifiers]", in an '
        "environment of its own",
        name="verifiers",
    )

from medseg_agents.verifiers.env import MedSegEnv, MedSegEnvConfig
from medseg_agents.verifiers.harness import MedSegHarness, MedSegHarnessConfig
from medseg_agents.verifiers.loading import load_environment
from medseg_agents.verifiers.taskset import MedSegTaskset, MedSegTasksetConfig

__all__ = [
    "MedSegEnv",
    "MedSegEnvConfig",
    "MedSegHarness",
    "MedSegHarnessConfig",
    "MedSegTaskset",
    "MedSegTasksetConfig",
    "load_environment",
]
