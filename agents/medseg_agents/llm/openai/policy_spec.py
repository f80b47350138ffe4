"""The policy "openai:MODEL?option=value&..." by spec."""

from __future__ import annotations

from typing import Any

from medseg_agents.llm.openai.options import OpenAIOptions
from medseg_agents.llm.openai.policy import OpenAIPolicy
from medseg_agents.policies.options import check_view, policy_and_view
from medseg_agents.policies.specs import PolicySpec
from medseg_gym.envs.views.chat_kinds import IMAGE_CHAT, chat_kind
from medseg_gym.registry import takes_spec
from medseg_gym.specs import Spec


@takes_spec
def policy_spec(spec: Spec) -> PolicySpec:
    """Read "openai:MODEL?option=value&...", see `OpenAIOptions` and `CHAT_VIEW`.

    `env=MedSegVolumeChat-v0` among the options has the model play volumes.

    Raises:
        PolicyError: No model, or an option that does not exist or cannot have that value.
        MedSegError: No environment that chats has that id.
    """
    policy, view, env_id = policy_and_view(spec, OpenAIOptions)
    kind = chat_kind(env_id or IMAGE_CHAT.env_id)
    check_view(spec, view, kind)
    options = OpenAIOptions(**policy)

    def build(envs: Any) -> OpenAIPolicy:
        seen = envs.view
        return OpenAIPolicy(
            spec.argument,
            seen.system_messages,
            seen.texts.over,
            seen.tool_schemas,
            options,
            seen.image_keys,
        )

    return PolicySpec(spec.text, build, kind.env_id, view)
