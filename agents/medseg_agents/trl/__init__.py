"""The suite in TRL's `GRPOTrainer`, as an environment of tools or as a batched rollout.

`make_environment(...)` is an `environment_factory`: TRL generates, reads the calls and hands each
to a `MedSegChat-v0` of its own. `ChatRollout` is a `rollout_func`: whole conversations on the
native batch, one decoder call a turn for all; `ChatGRPOTrainer` gives their images to the loss.
Extra `llm`. What differs between the two, and from RLlib's: `docs/how-to/trl_verl.md`.
"""

from medseg_agents.trl.conversation_template import show_as_conversation
from medseg_agents.trl.dataset import environment_rows, rollout_rows
from medseg_agents.trl.environment import SegmentationEnvironment, make_environment
from medseg_agents.trl.rewards import episode_return, rollout_return
from medseg_agents.trl.rollout import ChatRollout
from medseg_agents.trl.trainer import ChatGRPOTrainer

__all__ = [
    "ChatGRPOTrainer",
    "ChatRollout",
    "SegmentationEnvironment",
    "environment_rows",
    "episode_return",
    "make_environment",
    "rollout_return",
    "rollout_rows",
    "show_as_conversation",
]
