"""Options of chat policies: some belong to the policy, the others to the view that it sees."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

from medseg_gym.errors import PolicyError
from medseg_gym.option_values import convert_options, declared_options
from medseg_gym.specs import Spec

if typing.TYPE_CHECKING:  # it imports torch, which reading a spec does not need
    from medseg_gym.envs.views.chat_kinds import ChatKind

CHAT_VIEW: dict[str, Any] = {
    "image_size": int,
    "texts": str,
    "overlay": str,
    "overlay_strength": float,
    "thinking": bool | typing.Literal["refuse"],
    "coordinates": str,
    "tools": tuple[str, ...],
    "overview_size": int,
}
"""Arguments of chat environments that belong to the view alone; tools are joined by "+"."""


def policy_and_view(spec: Spec, options: type) -> tuple[dict[str, Any], dict[str, Any], str | None]:
    """Convert the options of "KIND:ARGUMENT?option=value" and divide them.

    Args:
        spec: Of the policy.
        options: Dataclass of the policy's own options.

    Returns:
        Arguments of `options`, arguments of the environment out of `CHAT_VIEW`, and the id of the
        environment (option `env`), None where it is left out.

    Raises:
        PolicyError: No argument, an option that neither has, or a value of another type.
    """
    require_argument(spec)
    declared = {**declared_options(options), **CHAT_VIEW, "env": str}
    values = convert_options(f"{spec.kind}:{spec.argument}", spec.options, declared, PolicyError)
    view = {name: value for name, value in values.items() if name in CHAT_VIEW}
    env_id = values.pop("env", None)
    return {name: value for name, value in values.items() if name not in view}, view, env_id


def check_view(spec: Spec, view: Mapping[str, Any], kind: ChatKind) -> None:
    """Refuse options of a view that the environment does not have.

    Raises:
        PolicyError: With those that it has.
    """
    foreign = sorted(set(view) - set(kind.options.of_view))
    if foreign:
        raise PolicyError(
            f"{spec.text}: {kind.env_id} has no {', '.join(foreign)}; options of its view are "
            f"{', '.join(kind.options.of_view)}"
        )


def require_argument(spec: Spec) -> None:
    """Refuse a spec that names nothing behind its kind.

    Raises:
        PolicyError: It has no argument.
    """
    if not spec.argument.strip():
        kind = spec.kind
        raise PolicyError(f"{kind}: names nothing; give {kind}:NAME or {kind}:NAME?option=value")
