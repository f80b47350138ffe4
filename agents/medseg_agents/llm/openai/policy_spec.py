"""The policy "openai:MODEL?option=value&..." by name."""

from __future__ import annotations

from typing import Any

from medseg_agents.llm.openai.options import OpenAIOptions
from medseg_agents.llm.openai.policy import OpenAIPolicy
from medseg_agents.policies.options import read_named_options
from medseg_agents.policies.specs import PolicySpec


def policy_spec(argument: str) -> PolicySpec:
    """Return the policy spec "openai:MODEL?option=value&...", see `OpenAIOptions` and `CHAT_VIEW`.

    Raises:
        PolicyError: No model, or an option that does not exist or cannot have that value.
    """
    read = read_named_options("openai", argument, OpenAIOptions)
    options = OpenAIOptions(**read.policy)

    def build(envs: Any) -> OpenAIPolicy:
        view = envs.view
        return OpenAIPolicy(
            read.name, view.system_messages, view.texts.over, view.tool_schemas, options
        )

    return PolicySpec(f"openai:{argument}", build, "MedSegChat-v0", read.view)
