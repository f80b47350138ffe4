"""PolicySpec `llm:PATH`, or `llm:PATH?temperature=1&history=2`: a checkpoint on this machine."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from medseg_agents.llm.chat_policy import ChatPolicy
from medseg_agents.llm.checkpoint import read_view
from medseg_agents.llm.engine_options import EngineOptions, ModelOptions
from medseg_agents.policies.options import policy_and_view
from medseg_agents.policies.specs import PolicySpec
from medseg_gym.errors import PolicyError
from medseg_gym.registry import takes_spec
from medseg_gym.specs import Spec


@takes_spec
def llm(spec: Spec) -> PolicySpec:
    """Read "llm:PATH?option=value&...".

    View and options saved beside the checkpoint hold where the spec does not say otherwise.

    Args:
        spec: Its argument is the folder of a checkpoint or of adapters; its options are those of
            `ModelOptions` and of the chat environment's view.

    Raises:
        PolicyError: An option that does not exist or has no such value, or a checkpoint that
            chooses the engine.
    """
    policy, view = policy_and_view(spec, ModelOptions)
    saved_view, saved_policy = read_view(spec.argument)
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
        return ChatPolicy.load(spec.argument, envs.system_messages, over, options, spec.text)

    return PolicySpec(spec.text, build, "MedSegChat-v0", {**saved_view, **view})
