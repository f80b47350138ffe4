"""Policies that need no training, by spec: "oracle-box?loosen=0.2", "noisy-hybrid?wrong=0.1"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medseg_gym.annotators.box import OracleBox
from medseg_gym.annotators.box_click import OracleBoxClick
from medseg_gym.annotators.click import OracleClick
from medseg_gym.annotators.expert import BoxToPoint, Hybrid, SequentialClick
from medseg_gym.annotators.noisy import Noisy
from medseg_gym.annotators.scripted import CentreBox, OracleScript, RandomActions, StopAtOnce
from medseg_gym.errors import PolicyError
from medseg_gym.option_values import convert_options, declared_options, takes_any_option
from medseg_gym.policy import Policy
from medseg_gym.policy_checks import check_policy
from medseg_gym.prompts import ArrayCodec
from medseg_gym.prompts.volumes import VolumeCodec
from medseg_gym.registry import Factory, Registry
from medseg_gym.specs import Spec, split_specs

VOLUME_ENV = "MedSegVolume-v0"
"""Environment of the policies of volumes."""

NOISY = "noisy-"
"""Before the kind of any oracle: the same with a human hand (see `Noisy`)."""

ANNOTATORS: Registry[Policy] = Registry(
    "policy",
    "medseg_gym.policies",
    "factory(codec, **options)",
    {
        "random": RandomActions,
        "stop": StopAtOnce,
        "centre-box": CentreBox,
        "oracle-box": OracleBox,
        "oracle-click": OracleClick,
        "oracle-box-click": OracleBoxClick,
        "box-to-point": BoxToPoint,
        "sequential-click": SequentialClick,
        "hybrid": Hybrid,
    },
    PolicyError,
)
VOLUME_ANNOTATORS: Registry[Policy] = Registry(
    "policy of volumes",
    "medseg_gym.volume_policies",
    "factory(codec, **options)",
    {
        "random": "medseg_gym.annotators.volume_baselines:RandomActions",
        "stop": "medseg_gym.annotators.volume_baselines:StopAtOnce",
        "middle-box": "medseg_gym.annotators.volume_baselines:MiddleBox",
        "oracle-key-slice": "medseg_gym.annotators.volumes:KeySliceBox",
        "oracle-key-slice-clicks": "medseg_gym.annotators.volumes:KeySliceClicks",
        "oracle-key-slice-boxes": "medseg_gym.annotators.volumes:KeySliceBoxes",
        "oracle-every-slice": "medseg_gym.annotators.volumes:EverySliceBox",
    },
    PolicyError,
)
"""Policies that play `MedSegVolume-v0`; `make` looks there where it is given a `VolumeCodec`."""

_OFTEN_NOISY = ("box-to-point", "hybrid", "sequential-click")


def names() -> tuple[str, ...]:
    """Kinds that `make` knows; the noisy ones of the experts among them."""
    return (*ANNOTATORS.names(), *(NOISY + kind for kind in _OFTEN_NOISY))


def register(kind: str, factory: str | Factory[Policy]) -> None:
    """Make `make(kind, codec)` call `factory(codec, **options)`.

    Args:
        kind: See `Registry.register`.
        factory: A class or function, or "module:name".

    Raises:
        PolicyError: The kind is taken, cannot be written in a spec, or begins with "noisy-".
    """
    if kind.startswith(NOISY):
        raise PolicyError(f"policy kind {kind!r} must not begin with {NOISY!r}")
    ANNOTATORS.register(kind, factory)


def volume_names() -> tuple[str, ...]:
    """Kinds that `make` knows for volumes."""
    return VOLUME_ANNOTATORS.names()


def make(text: str, codec: ArrayCodec | VolumeCodec, **options: Any) -> Policy:
    """Build a policy from its spec, "KIND" or "KIND?option=value&option=value".

    "noisy-KIND" is any oracle with the slips of `Noisy`, whose options stand beside its own; where
    both have one of the same name, it is the slip's. "package.module:Name" or "path/file.py:Name"
    is a policy class or `factory(codec, **options)` of your own.

    Args:
        text: The spec.
        codec: Of the view it plays through (`envs.unwrapped.codec`); a `VolumeCodec` asks for a
            policy of volumes (`volume_names`).
        **options: Further options.

    Raises:
        PolicyError: Unknown kind or option, a value of another type, a factory of another
            signature, or slips for a policy that is no oracle.
    """
    if isinstance(codec, VolumeCodec):
        return _checked(text, VOLUME_ANNOTATORS.make(text, codec, **options))
    spec, factory = _find(text)
    slips = _slips(spec)
    values = {**_options(spec, factory), **options}
    policy = ANNOTATORS.call(
        spec, factory, codec, **{name: v for name, v in values.items() if name not in slips}
    )
    _checked(text, policy)
    if not _is_noisy(spec):
        return policy
    if not isinstance(policy, OracleScript):
        raise PolicyError(
            f"policy {text!r}: only an oracle can be noisy, {_plain(spec).kind!r} is none"
        )
    return Noisy(policy, **{name: value for name, value in values.items() if name in slips})


def _checked(text: str, policy: Policy) -> Policy:
    check_policy(policy, text)
    return policy


def check(text: str, others: Sequence[str] = ()) -> None:
    """Refuse a text that `make` would refuse, before there is anything to play on.

    Args:
        text: The spec.
        others: Further kinds that could have been meant, for the error.

    Raises:
        PolicyError: As there, but for noise on what is no oracle and what a policy itself refuses.
    """
    spec, factory = _find(text, others)
    slips = _slips(spec)
    options = {k: v for k, v in _options(spec, factory).items() if k not in slips}
    ANNOTATORS.check_call(spec, factory, object(), **options)


def find_volume_policy(text: str) -> tuple[Spec, Factory[Policy]] | None:
    """Return spec and factory of a text that names a policy of volumes and of nothing else.

    Args:
        text: A kind that volumes alone have, or a user's own class or function whose `env_id` is
            "MedSegVolume-v0".

    Returns:
        None for any other text.
    """
    spec = VOLUME_ANNOTATORS.parse(text)
    if spec.is_own:
        factory = VOLUME_ANNOTATORS.find(spec)
        return (spec, factory) if getattr(factory, "env_id", "") == VOLUME_ENV else None
    if VOLUME_ANNOTATORS.knows(spec.kind) and not ANNOTATORS.knows(spec.kind):
        return spec, VOLUME_ANNOTATORS.find(spec)
    return None


def begins_spec(text: str) -> bool:
    """Return whether a text begins with a known kind, or with the name of a user's own object."""
    text = text.strip().removeprefix(NOISY)
    return ANNOTATORS.begins_spec(text) or VOLUME_ANNOTATORS.begins_spec(text)


def split(text: str) -> list[str]:
    """Split a list of specs with commas between them, see `medseg_gym.registry.split_specs`."""
    return split_specs(text, begins_spec)


def _is_noisy(spec: Spec) -> bool:
    return spec.kind.startswith(NOISY)


def _plain(spec: Spec) -> Spec:
    return Spec(spec.text, spec.kind.removeprefix(NOISY), spec.rest, PolicyError)


def _slips(spec: Spec) -> dict[str, Any]:
    return declared_options(Noisy, 1) if _is_noisy(spec) else {}


def _find(text: str, others: Sequence[str] = ()) -> tuple[Spec, Factory[Policy]]:
    """Return a spec and the factory of its kind, or of the kind that is to be noisy."""
    spec = ANNOTATORS.parse(text)
    plain = _plain(spec)
    if _is_noisy(spec) and (plain.is_own or ANNOTATORS.knows(plain.kind)):
        return spec, ANNOTATORS.find(plain)
    return spec, ANNOTATORS.find(spec, [*(NOISY + kind for kind in _OFTEN_NOISY), *others])


def _options(spec: Spec, factory: Factory[Policy]) -> dict[str, Any]:
    """Return a spec's options, converted; those of `Noisy` too, where it is noisy."""
    ANNOTATORS.options_of(Spec(spec.text, spec.kind, spec.argument, PolicyError), factory, 1)
    if not callable(factory):
        ANNOTATORS.check_call(spec, factory)
    declared = {**declared_options(factory, 1), **_slips(spec)}
    return convert_options(
        f"policy {spec}", spec.options, declared, PolicyError, takes_any_option(factory)
    )
