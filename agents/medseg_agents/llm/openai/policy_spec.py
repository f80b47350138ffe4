"""The policy "openai:MODEL?option=value&..." by spec."""

from __future__ import annotations

from typing import Any

from medseg_agents.llm.openai.options import OpenAIOptions
from medseg_agents.llm.openai.policy import OpenAIPolicy
from medseg_agents.policies.options import policy_and_view
from medseg_agents.policies.specs import PolicySpec
from medseg_gym.registry import takes_spec
from medseg_gym.specs import Spec


@takes_spec
def policy_spec(spec: Spec) -> PolicySpec:
    """Read "openai:MODEL?option=value&...", see `OpenAIOptions` and `CHAT_VIEW`.

    Raises:
        PolicyError: No model, or an option that does not exist or cannot have that value.
    """
    policy, view = policy_and_view(spec, OpenAIOptions)
    options = OpenAIOptions(**policy)

    def build(envs: Any) -> OpenAIPolicy:
        seen = envs.view
        return OpenAIPolicy(
            spec.argument, seen.system_messages, seen.texts.over, seen.tool_schemas, options
        )

    return PolicySpec(spec.text, build, "MedSegChat-v0", view)
