"""The chat environments as an OpenEnv server, and a client for it. Extra `openenv`.

`python -m medseg_agents.openenv` serves; `MedSegClient` plays. Every session is an episode of its
own, and all of them play on one segmenter (`medseg_agents.chat_episodes`). How to use it, and what
does not fit into OpenEnv's messages: `docs/how-to/hubs.md`.
"""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("openenv") is None:
    raise ModuleNotFoundError(
        'medseg_agents.openenv needs OpenEnv: pip install "medseg-gym[openenv]"', name="openenv"
    )

from medseg_agents.openenv.client import MedSegClient, as_messages
from medseg_agents.openenv.environment import MedSegEnvironment
from medseg_agents.openenv.messages import MedSegAction, MedSegObservation, MedSegState
from medseg_agents.openenv.server import make_app

__all__ = [
    "MedSegAction",
    "MedSegClient",
    "MedSegEnvironment",
    "MedSegObservation",
    "MedSegState",
    "as_messages",
    "make_app",
]
