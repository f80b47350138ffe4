"""A chat template that shows tool results as `MedSegChat-v0` shows turns.

TRL's tools come with what the chat template makes of them: schemas in the system prompt, results
between `<tool_response>` tags. A model that was fine-tuned on the suite's conversations has never
seen either. This puts a preface before a checkpoint's own template that leaves the schemas out and
makes a user turn of every tool result, so that the model is fed the tokens it knows.
"""

from __future__ import annotations

from typing import Any

from medseg_gym.errors import PolicyError

_PREFACE = """\
{%- set tools = none %}
{%- set turned = namespace(messages=[]) %}
{%- for message in messages %}
    {%- if message.role == "tool" %}
        {%- set turned.messages = turned.messages +
            [{"role": "user", "content": message.content}] %}
    {%- else %}
        {%- set turned.messages = turned.messages + [message] %}
    {%- endif %}
{%- endfor %}
{%- set messages = turned.messages %}
"""


def show_as_conversation(processor: Any) -> Any:
    """Change a processor's chat template in place, and pad at the left.

    TRL wants padding at the left and does not look: where no rollout of a batch made a call, its
    loss would take the places of images from prompts that are padded at the other side.

    Args:
        processor: Of a checkpoint whose template TRL knows (`trl.chat_template_utils`), or whose
            tokenizer says how answers are read (`response_template`).

    Returns:
        The processor.

    Raises:
        PolicyError: TRL does not know the template, so that it could not find the calls.
    """
    from trl.chat_template_utils import add_response_schema

    tokenizer = getattr(processor, "tokenizer", processor)
    tokenizer.padding_side = "left"
    if processor.chat_template.startswith(_PREFACE):
        return processor
    if getattr(tokenizer, "response_template", None) is None:
        try:
            add_response_schema(processor)
        except ValueError as error:
            raise PolicyError(
                f"TRL cannot read tool calls of this chat template ({error}); set "
                "`response_template` on the tokenizer, or use ChatRollout, which needs none"
            ) from None
    processor.chat_template = _PREFACE + processor.chat_template
    return processor
