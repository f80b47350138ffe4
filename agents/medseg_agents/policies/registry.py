"""Policies by spec, for tables, commands and the page: trained ones, controls and annotators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg_agents.policies.specs import PolicySpec
from medseg_gym import annotators
from medseg_gym.annotators.registry import ANNOTATORS
from medseg_gym.errors import PolicyError
from medseg_gym.registry import Factory, Registry
from medseg_gym.specs import split_specs

POLICIES: Registry[PolicySpec] = Registry(
    "policy",
    "medseg_gym.policy_specs",
    "factory(argument, **options)",
    {
        "sb3": "medseg_agents.policies.network:network_policy",
        "rllib": "medseg_agents.policies.network:network_policy",
        "llm": "medseg_agents.policies.llm:llm",
        "openai": "medseg_agents.llm.openai.policy_spec:policy_spec",
        "location-prior": "medseg_agents.policies.location_prior:policy_spec",
        "shuffled-images": "medseg_agents.policies.shuffled_images:shuffled_images",
        "volume": "medseg_agents.policies.volumes:policy_spec",
    },
    PolicyError,
    has_argument=True,
)
"""Policies with a view or a file of their own, beside those of `medseg_gym.annotators`."""


def names() -> tuple[str, ...]:
    """Kinds that `make` knows, the annotators and those of volumes among them."""
    volumes = (name for name in annotators.volume_names() if not ANNOTATORS.knows(name))
    return (*POLICIES.names(), *annotators.names(), *volumes)


def register(kind: str, factory: str | Factory[PolicySpec]) -> None:
    """Make `make("kind:ARGUMENT?option=value")` call `factory("ARGUMENT", option=value)`.

    A policy that needs nothing but the codec of the array view is registered with
    `medseg_gym.annotators.register`.

    Args:
        kind: See `Registry.register`.
        factory: A function that returns a `PolicySpec`, or "module:function".

    Raises:
        PolicyError: The kind is taken or cannot be written in a spec.
    """
    if ANNOTATORS.knows(kind):
        raise PolicyError(f"a policy named {kind!r} is registered already")
    POLICIES.register(kind, factory)


def make(text: str, **options: Any) -> PolicySpec:
    """Read a policy's spec; what the policy itself needs is loaded when it is built.

    Args:
        text: "KIND:ARGUMENT?option=value" of a kind in `names`; the folder of a language model
            (which is "llm:FOLDER"); or, as package.module:Name or path/file.py:Name, a policy
            class, a `factory(codec, **options)` or a `PolicySpec` of your own. What has the
            attribute `env_id = "MedSegVolume-v0"` plays whole volumes.
        **options: Further options.

    Raises:
        PolicyError: Unknown kind or option, a value of another type, or what the kind says.
    """
    if POLICIES.knows(POLICIES.parse(text).kind):
        return POLICIES.make(text, **options)
    if Path(text.partition("?")[0]).is_dir():
        return POLICIES.make(f"llm:{text}", **options)
    if "/" in text and ":" not in text and not text.endswith(".py"):
        raise PolicyError(f"policy {text!r}: there is no such folder")
    spec = ANNOTATORS.parse(text)
    own: object = ANNOTATORS.find(spec) if spec.is_own else None
    if isinstance(own, PolicySpec):
        if spec.options or options:
            raise PolicyError(f"policy {text}: a PolicySpec takes no options")
        return own
    if annotators.find_volume_policy(text) is not None:
        return POLICIES.make(f"volume:{text}", **options)
    others = [name for name in annotators.volume_names() if not ANNOTATORS.knows(name)]
    annotators.check(text, [*others, *(f"{kind}:..." for kind in POLICIES.names())])
    return PolicySpec(text, lambda envs: annotators.make(text, envs.codec, **options))


def split(text: str) -> list[str]:
    """Split a list of specs with commas between them, see `medseg_gym.registry.split_specs`."""
    return split_specs(text, _begins_spec)


def _begins_spec(text: str) -> bool:
    folder = text.partition("?")[0]
    return (
        POLICIES.begins_spec(text)
        or annotators.begins_spec(text)
        or ("/" in folder and Path(folder).is_dir())
    )
