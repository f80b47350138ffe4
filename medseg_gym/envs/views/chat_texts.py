"""Words of the chat environment: system prompt, turns and tool schemas, all replaceable.

The environment, the export for fine-tuning and every policy take their words from here, so that a
model is trained on exactly what it is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from medseg_gym.errors import MedSegError
from medseg_gym.prompts import GRID, TOOLS, Coordinates, call_names

SYSTEM = """\
You outline a structure in a medical image by steering a segmentation tool. Every answer is one \
tool call; then you are shown the image again with the mask so far.

{coordinates} The calls:
{calls}"""

FIELDS = ("target", "modality", "max_steps", "steps_left", "calls_left", "error")
"""Fields that the turns of `ChatTexts` may mention."""

CALLS = {
    "add_bbox": '<tool_call>{"name": "add_bbox", "arguments": {"bbox_2d": [x1, y1, x2, y2]}}'
    "</tool_call> encloses the structure and replaces an earlier box.",
    "add_point": '<tool_call>{"name": "add_point", "arguments": {"point_2d": [x, y], '
    '"point_type": "positive"}}</tool_call> clicks on what is missing; "negative" on what does '
    "not belong.",
    "undo_action": '<tool_call>{"name": "undo_action", "arguments": {}}</tool_call> takes the last '
    "prompt back.",
    "clear_action": '<tool_call>{"name": "clear_action", "arguments": {}}</tool_call> starts over '
    "without a mask.",
    "stop_action": '<tool_call>{"name": "stop_action", "arguments": {}}</tool_call> accepts the '
    "mask and ends: stop as soon as the mask is good, or at once if the structure is not in the "
    "image.",
}


@dataclass(frozen=True, kw_only=True)
class ChatTexts:
    """The words of the chat environment.

    In `opening`, `turn` and `refused` these are filled in as `str.format` does: {target},
    {modality} ("" where it is not known), {max_steps}, {steps_left}, {calls_left} ("1 call left",
    "3 calls left") and {error} (why the newest call changed nothing, else "").

    Args:
        system: System prompt; "" leaves the system message out. "{calls}" in it stands for the
            lines of `calls` that belong to the tools in use, "{coordinates}" for the sentence that
            says how places are written.
        opening: First user turn, beside the plain image.
        turn: User turn after a call that did what it should, beside the image with the mask.
        refused: User turn after a call that changed nothing.
        over: What is observed after the last call, by which a policy knows that a slot waits for
            no answer; it is no part of the conversation, and nothing is filled in.
        think: Added to the system prompt where thinking is invited.
        calls: One line for each tool call, by its name.
    """

    fields: ClassVar[tuple[str, ...]] = FIELDS
    system: str = SYSTEM
    opening: str = "Segment: {target}. You have at most {max_steps} calls."
    turn: str = "This is the mask so far. {calls_left}."
    refused: str = "That call changed nothing: {error}. {calls_left}."
    over: str = "The episode is over."
    think: str = (
        "\n\nYou may think first, between <think> and </think>; a call in there counts for nothing."
    )
    calls: Mapping[str, str] = field(default_factory=lambda: dict(CALLS))

    def __post_init__(self) -> None:
        fields = self.fields
        known = {name: "" for name in fields}
        for name in ("opening", "turn", "refused"):
            if getattr(self, name) == self.over:
                raise MedSegError(
                    f"ChatTexts.{name} and ChatTexts.over are both {self.over!r}: a policy could "
                    "not tell that an episode has ended"
                )
            try:
                getattr(self, name).format(**known)
            except (KeyError, IndexError, ValueError) as error:
                raise MedSegError(
                    f"ChatTexts.{name} cannot be filled in ({error!r}); it may use "
                    f"{', '.join('{' + n + '}' for n in fields)}, and braces are doubled"
                ) from None

    @staticmethod
    def names(tools: Sequence[str]) -> tuple[str, ...]:
        """Names of the calls that a subset of the tools needs."""
        return call_names(tools)

    def system_prompt(
        self,
        tools: Sequence[str] = TOOLS,
        thinking: bool = False,
        coordinates: Coordinates = GRID,
    ) -> str:
        """The system prompt for the tools in use; "" for none.

        Args:
            tools: Subset of `prompts.TOOLS`.
            thinking: Whether thoughts are invited.
            coordinates: How places are written.
        """
        names = self.names(tools)
        lines = "\n".join(self.calls[name] for name in names if name in self.calls)
        text = self.system.replace("{coordinates}", coordinates.rule).replace("{calls}", lines)
        return text + self.think if thinking else text


TERSE = ChatTexts(
    system="",
    opening="{target}, {max_steps} calls.",
    turn="{steps_left} left.",
    refused="no change, {steps_left} left.",
    over="over.",
    think="",
)
"""As few words as will do, for models too small to read: no system prompt, no reasons."""

PRESETS = {"full": ChatTexts(), "terse": TERSE}
"""Values of the option `texts` by name."""


def read_texts(
    texts: str | ChatTexts | Mapping[str, Any],
    presets: Mapping[str, ChatTexts] = PRESETS,
    kind: type[ChatTexts] = ChatTexts,
) -> ChatTexts:
    """Texts by the name of a preset, as they are, or as arguments of `ChatTexts`.

    Args:
        texts: The option.
        presets: By name.
        kind: `ChatTexts`, or the class of it that belongs to the view.

    Raises:
        MedSegError: Unknown preset, an argument that does not exist, or a turn that cannot be
            filled in.
    """
    if isinstance(texts, kind):
        return texts
    if isinstance(texts, (str, ChatTexts)):
        if texts not in list(presets):
            raise MedSegError(
                f"texts must be one of {', '.join(presets)} or a {kind.__name__}, got {texts!r}"
            )
        return presets[str(texts)]
    try:
        return kind(**texts)
    except TypeError as error:
        raise MedSegError(f"texts: {error}") from None


def tool_schemas(
    tools: Sequence[str] = TOOLS, coordinates: Coordinates = GRID
) -> list[dict[str, Any]]:
    """The tool calls as OpenAI's function schemas, for chat templates and servers that take them.

    Args:
        tools: Subset of `prompts.TOOLS`.
        coordinates: How places are written.
    """
    number = coordinates.schema
    kinds = [kind for kind in ("positive", "negative") if f"{kind}_point" in tools]
    described: dict[str, tuple[str, dict[str, Any]]] = {
        "add_bbox": (
            "Enclose the structure with a box; replaces an earlier box.",
            {
                "bbox_2d": {
                    "type": "array",
                    "items": number,
                    "minItems": 4,
                    "maxItems": 4,
                    "description": f"[x1, y1, x2, y2], {coordinates.span}",
                }
            },
        ),
        "add_point": (
            "Click on what is missing (positive) or on what does not belong (negative).",
            {
                "point_2d": {
                    "type": "array",
                    "items": number,
                    "minItems": 2,
                    "maxItems": 2,
                    "description": f"[x, y], {coordinates.span}",
                },
                "point_type": {"type": "string", "enum": kinds},
            },
        ),
        "undo_action": ("Take the last prompt back.", {}),
        "clear_action": ("Start over without a mask.", {}),
        "stop_action": ("Accept the mask and end.", {}),
    }
    return [function_schema(name, *described[name]) for name in call_names(tools)]


def function_schema(name: str, description: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """One call as OpenAI's function schema; all its arguments are required."""
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": dict(arguments),
                "required": list(arguments),
            },
        },
    }
