"""PolicySpec `llm:PATH`, or `llm:PATH?temperature=1&history=2`: a checkpoint on this machine."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from medseg_agents.llm.chat_policy import ChatPolicy
from medseg_agents.llm.checkpoint import kind_to_play, read_view
from medseg_agents.llm.engine_options import EngineOptions, ModelOptions
from medseg_agents.policies.options import check_view, policy_and_view
from medseg_agents.policies.specs import PolicySpec
from medseg_gym.errors import PolicyError
from medseg_gym.registry import takes_spec
from medseg_gym.specs import Spec


@takes_spec
def llm(spec: Spec) -> PolicySpec:
    """Read "llm:PATH?option=value&...".

    Environment, view and options saved beside the checkpoint hold where the spec does not say
    otherwise.

    Args:
        spec: Its argument is the folder of a checkpoint or of adapters; its options are those of
            `ModelOptions` and of the chat environment's view, and `env`, the id of the chat
            environment.

    Raises:
        PolicyError: An option that does not exist or has no such value, a checkpoint that chooses
            the engine, or one that was trained for another environment.
    """
    policy, view, env_id = policy_and_view(spec, ModelOptions)
    kind = kind_to_play(spec.argument, env_id)
    check_view(spec, view, kind)
    saved_view, saved_policy, _ = read_view(spec.argument)
    # A checkpoint may be somebody else's: which programs run is not for it to say.
    foreign = sorted(set(saved_policy) & {field.name for field in fields(EngineOptions)})
    if foreign:
        raise PolicyError(
            f"{spec.text}: its medseg_view.json sets {', '.join(foreign)}, which is not for a "
            "checkpoint to decide; remove that, and give it behind the policy's name"
        )
    options = ModelOptions(**{**saved_policy, **policy})

    def build(envs: Any) -> ChatPolicy:
        over = envs.view.texts.over
        return ChatPolicy.load(
            spec.argument, envs.system_messages, over, options, spec.text, envs.view.image_keys
        )

    return PolicySpec(spec.text, build, kind.env_id, {**saved_view, **view})
