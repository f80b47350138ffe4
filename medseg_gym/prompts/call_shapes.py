"""The shapes that calls have once they are read: where the name stands, where the arguments."""

from __future__ import annotations

from collections.abc import Mapping
from reprlib import repr as brief
from typing import Any

from medseg_gym.errors import PromptError
from medseg_gym.prompts.lenient_json import read_lenient_json
from medseg_gym.prompts.tool_calls import TOOL_CALL_NAMES, VOLUME_CALL_NAMES
from medseg_gym.prompts.types import TOOLS

OLDER = ("add_positive_point", "add_negative_point")
CALLABLE = frozenset([*TOOL_CALL_NAMES, *VOLUME_CALL_NAMES, *OLDER, *TOOLS])
"""Every name that can be called, told to the model or not."""

_WRAPPERS = ("function", "tool_call", "function_call")
_NAMES = ("name", "tool_name", "function", "tool", "action", "recipient_name")
_ARGUMENTS = ("arguments", "parameters", "args", "input", "action_input", "tool_input", "kwargs")
_BESIDE = (*_NAMES, *_ARGUMENTS, "type", "id", "index", "tool_call_id")
_PLACES = ("bbox_2d", "point_2d")


def plain_name(name: str) -> str:
    """A name without capitals, owner and number: "functions.add_bbox:0", "add_bbox.call"."""
    return name.strip().lower().removesuffix(".call").rpartition(".")[2].partition(":")[0]


def calls_in(value: Any, repairs: list[str]) -> list[Any]:
    """The calls in a value: it may be one, a list of some, or hold such a list."""
    if isinstance(value, dict) and isinstance(value.get("tool_calls"), list):
        value = value["tool_calls"]
    if not isinstance(value, list) or not value:
        return [value]
    if not any(isinstance(one, (dict, list)) for one in value):
        return [value]
    repairs.append("a list around the call")
    return value


def read_call(call: Any, repairs: list[str]) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a call.

    Args:
        call: One of what `calls_in` gives.
        repairs: Gets what was forgiven.

    Raises:
        PromptError: It is none, or could be two, in words for the model.
    """
    for wrapper in _WRAPPERS:
        if isinstance(call, dict) and isinstance(call.get(wrapper), dict):
            call = call[wrapper]
            repairs.append(f"{wrapper!r} around the call")
    if not isinstance(call, dict):
        raise PromptError('the tool call must be {"name": ..., "arguments": {...}}')
    key = next((key for key in _NAMES if isinstance(call.get(key), str)), None)
    if key is None:
        return _without_name(call, repairs)
    if key != "name":
        repairs.append(f"the name under {key!r}")
    name = call[key]
    return name, _as_object(name, _arguments(name, call, repairs), repairs)


def _arguments(name: str, call: Mapping[str, Any], repairs: list[str]) -> Any:
    given = [key for key in _ARGUMENTS if key in call and call[key] not in (None, {}, "")]
    if any(call[key] != call[given[0]] for key in given):
        raise PromptError(f"arguments of {brief(name)} are given twice: {' and '.join(given)}")
    key = given[0] if given else next((key for key in _ARGUMENTS if key in call), None)
    if key is None:
        arguments: Any = {k: v for k, v in call.items() if k not in _BESIDE}
    else:
        arguments = call[key]
    if key not in (None, "arguments") or (key is None and arguments):
        repairs.append("arguments in another place")
    return arguments


def _as_object(name: str, arguments: Any, repairs: list[str]) -> dict[str, Any]:
    for _ in range(2):  # a text in a text: encoded twice on its way
        if isinstance(arguments, str):
            try:
                arguments = read_lenient_json(arguments)[0] if arguments.strip() else {}
            except ValueError as error:
                raise PromptError(
                    f"arguments of {brief(name)} are not valid JSON: {error}"
                ) from None
            repairs.append("arguments in a string")
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, dict):
        raise PromptError(f"arguments of {brief(name)} must be an object, got {brief(arguments)}")
    return arguments


def _without_name(call: dict[str, Any], repairs: list[str]) -> tuple[str, dict[str, Any]]:
    """A place alone, as models that ground words in images write it; or `{NAME: arguments}`."""
    places = [place for place in _PLACES if place in call]
    if len(places) == 2:
        raise PromptError("bbox_2d and point_2d stand together; answer with one tool call")
    if not places and "box_2d" in call:
        raise PromptError(
            "box_2d has y first with some models and x first with others; use add_bbox with "
            "bbox_2d: [x1, y1, x2, y2]"
        )
    if not places and len(call) == 1:
        ((name, arguments),) = call.items()
        if plain_name(name) in CALLABLE:
            repairs.append("the name as a key")
            return name, _as_object(name, arguments, repairs)
    if not places:
        raise PromptError('the tool call must be {"name": ..., "arguments": {...}}')
    repairs.append("a place without a call")
    if places == ["bbox_2d"]:
        return "add_bbox", call
    return "add_point", {"point_type": point_type(call.get("label")) or "positive", **call}


_KINDS = {
    "positive": ("positive", "pos", "foreground", "fg", "1", 1),
    "negative": ("negative", "neg", "background", "bg", "0", 0),
}


def point_type(value: object) -> str | None:
    """The type of a point by any of its names; None for what is no type."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = value.strip().lower()
    return next(
        (
            kind
            for kind, names in _KINDS.items()
            if isinstance(value, (str, int, float)) and value in names
        ),
        None,
    )


def python_call(name: str, plain: list[Any], named: dict[str, Any]) -> dict[str, Any]:
    """A call as Python writes it; arguments by position go to the names that they must have.

    Raises:
        PromptError: It is not plain what an argument is.
    """
    if not plain:
        return {"name": name, "arguments": named}
    called = plain_name(name)
    if len(plain) == 1 and isinstance(plain[0], dict) and not named:
        return {"name": name, "arguments": plain[0]}
    place = "bbox_2d" if "box" in called else "point_2d" if "point" in called else ""
    count = 4 if place == "bbox_2d" else 2
    if place and isinstance(plain[0], (list, str, dict)):
        values, rest = plain[0], plain[1:]
    else:
        values, rest = plain[:count], plain[count:]
    if not place or place in named or len(rest) > 1 or (rest and "point_type" in named):
        raise PromptError(f"arguments of {brief(name)} need their names, got {brief(plain)}")
    arguments_by_name = {place: values, **named}
    if rest and place == "point_2d":
        arguments_by_name["point_type"] = rest[0]
    elif rest:
        raise PromptError(f"arguments of {brief(name)} need their names, got {brief(plain)}")
    return {"name": name, "arguments": arguments_by_name}
