"""Contender `llm:PATH`, or `llm:PATH?temperature=1&history=2`: a checkpoint on this machine."""

from __future__ import annotations

from typing import Any

from agents.contenders import Contender
from agents.llm.answering import ModelOptions
from agents.llm.chat_policy import ChatPolicy
from agents.llm.checkpoint import read_view
from agents.named_options import read_named_options


def llm(argument: str) -> Contender:
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
        over = envs.stage.view.texts.over
        return ChatPolicy.load(named.name, envs.system_messages, over, options, name)

    return Contender(name, build, "MedSegChat-v0", {**saved_view, **named.view})
