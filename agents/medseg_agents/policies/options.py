"""Options of chat policies: some belong to the policy, the others to the view that it sees."""

from __future__ import annotations

import typing
from typing import Any

from medseg_gym.errors import PolicyError
from medseg_gym.option_values import convert_options, declared_options
from medseg_gym.specs import Spec

CHAT_VIEW: dict[str, Any] = {
    "image_size": int,
    "texts": str,
    "overlay": str,
    "overlay_strength": float,
    "thinking": bool | typing.Literal["refuse"],
    "coordinates": str,
    "tools": tuple[str, ...],
}
"""Arguments of `MedSegChat-v0` that belong to the view alone; tools are joined by "+"."""


def policy_and_view(spec: Spec, options: type) -> tuple[dict[str, Any], dict[str, Any]]:
    """Convert the options of "KIND:ARGUMENT?option=value" and divide them.

    Args:
        spec: Of the policy.
        options: Dataclass of the policy's own options.

    Returns:
        Arguments of `options`, and arguments of the environment out of `CHAT_VIEW`.

    Raises:
        PolicyError: No argument, an option that neither has, or a value of another type.
    """
    require_argument(spec)
    declared = {**declared_options(options), **CHAT_VIEW}
    values = convert_options(f"{spec.kind}:{spec.argument}", spec.options, declared, PolicyError)
    view = {name: value for name, value in values.items() if name in CHAT_VIEW}
    return {name: value for name, value in values.items() if name not in view}, view


def require_argument(spec: Spec) -> None:
    """Refuse a spec that names nothing behind its kind.

    Raises:
        PolicyError: It has no argument.
    """
    if not spec.argument.strip():
        kind = spec.kind
        raise PolicyError(f"{kind}: names nothing; give {kind}:NAME or {kind}:NAME?option=value")
