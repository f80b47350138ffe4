"""PolicySpec `llm:PATH`, or `llm:PATH?temperature=1&history=2`: a checkpoint on this machine."""

from __future__ import annotations

from typing import Any

from medseg_agents.llm.chat_policy import ChatPolicy
from medseg_agents.llm.checkpoint import read_view
from medseg_agents.llm.generation import ModelOptions
from medseg_agents.policies.options import read_named_options
from medseg_agents.policies.specs import PolicySpec


def llm(argument: str) -> PolicySpec:
    """Read what stands behind "llm:".

    View and options saved beside the checkpoint hold where the name does not say otherwise.

    Args:
        argument: Folder of a checkpoint or of adapters, and options (`ModelOptions` and those of
            the chat environment's view) behind a question mark.

    Raises:
        PolicyError: An option that does not exist or has no such value.
    """
    named = read_named_options("llm", argument, ModelOptions)
    saved_view, saved_policy = read_view(named.name)
    options = ModelOptions(**{**saved_policy, **named.policy})
    name = f"llm:{argument}"

    def build(envs: Any) -> ChatPolicy:
        over = envs.view.texts.over
        return ChatPolicy.load(named.name, envs.system_messages, over, options, name)

    return PolicySpec(name, build, "MedSegChat-v0", {**saved_view, **named.view})
