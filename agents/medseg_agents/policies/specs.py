"""Policies as benchmarks name them: "oracle-box:loosen=0.2", "sb3:RUN", "llm:PATH", ...

A `PolicySpec` is a policy together with the view that it plays through, so that one table can hold
policies that see arrays of different sizes, and policies that chat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from medseg_gym.annotators import check_policy, make_policy
from medseg_gym.errors import PolicyError
from medseg_gym.policy import Policy

_NOT_OF_A_VIEW = (
    *("cases", "split", "backbone", "backbone_options", "checkpoint", "device", "reward"),
    *("render_mode", "num_envs", "autoreset_mode"),
)


@dataclass(frozen=True)
class PolicySpec:
    """A policy that is still to be built, and the view that it plays through.

    Args:
        name: As it was given.
        build: Makes the policy for a vector environment of that view.
        env_id: Environment of the view.
        view: Arguments of that environment which belong to the view alone (image_size, bins,
            tools, targets, ...), as the policy's checkpoint says; never cases or a backbone.
    """

    name: str
    build: Callable[[Any], Policy]
    env_id: str = "MedSeg-v0"
    view: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A checkpoint may be somebody else's: where pictures and keys go is not for it to say.
        foreign = sorted(set(self.view) & set(_NOT_OF_A_VIEW))
        if foreign:
            raise PolicyError(
                f"{self.name}: its checkpoint's view sets {', '.join(foreign)}, which is not for a "
                "checkpoint to decide; remove that from view.json or medseg_view.json"
            )


_KINDS: dict[str, str | Callable[[str], PolicySpec]] = {
    "sb3": "medseg_agents.policies.network:sb3",
    "rllib": "medseg_agents.policies.network:rllib",
    "llm": "medseg_agents.policies.llm:llm",
    "usual-box": "medseg_agents.policies.location_prior:policy_spec",
    "shuffled": "medseg_agents.policies.shuffled_images:shuffled",
    "openai": "medseg_agents.llm.openai:policy_spec",
}


def register_policy_spec(kind: str, factory: str | Callable[[str], PolicySpec]) -> None:
    """Make `make_policy_spec("kind:ARGUMENT")` call `factory("ARGUMENT")`.

    Args:
        kind: Before the colon.
        factory: A function, or "module:function", imported when it is first needed.
    """
    _KINDS[kind] = factory


def make_policy_spec(text: str) -> PolicySpec:
    """Read a policy's name.

    Args:
        text: "KIND:ARGUMENT" of a registered kind, the folder of a language model (which is
            "llm:FOLDER"), or a name for `annotators.make_policy`.

    Raises:
        PolicyError: What the kind says, or a name that nobody has.
    """
    kind, colon, argument = text.partition(":")
    if kind not in _KINDS and Path(text.partition("?")[0]).is_dir():
        kind, colon, argument = "llm", ":", text
    factory = _KINDS.get(kind) if colon else None
    if factory is None:
        if "/" in text and not colon:
            raise PolicyError(f"policy {text!r}: there is no such folder")
        check_policy(text, [f"{kind}:..." for kind in _KINDS])
        return PolicySpec(text, lambda envs: make_policy(text, envs.codec))
    if isinstance(factory, str):
        module, _, attribute = factory.partition(":")
        factory = getattr(import_module(module), attribute)
    return factory(argument)
