"""A conversation as OpenAI's API takes it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from medseg_agents.llm.openai.answers import AssistantTurn
from medseg_gym.envs.views.messages import Message, user_message

_OTHER_CALL = "Only one call counts in each turn; the answer to the first says what came of it."


def data_url(image: np.ndarray) -> str:
    """Encode an image, H x W x 3 uint8, as a data URL with PNG in base64."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def as_openai(
    messages: Sequence[Message],
    images: Sequence[str],
    turns: Sequence[AssistantTurn] = (),
    detail: str | None = None,
) -> list[dict[str, Any]]:
    """Write messages as OpenAI's API takes them.

    A turn that follows tool calls is split: its words answer the calls, each with a "tool" message,
    and its images come after them in a message of the user, for the API takes images there
    alone.

    Args:
        messages: See `medseg_gym.envs.views.messages.Message`.
        images: Data URLs of their image parts, in order.
        turns: Those behind the messages of the assistant, in order.
        detail: Of the images.

    Returns:
        Messages with `image_url` parts; what is words alone is one str.
    """
    urls, remaining = iter(images), iter(turns)
    before: AssistantTurn | None = None
    written: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "assistant":
            before = next(remaining)
            written.append(before.message())
        else:
            written += _turn(message, urls, before, detail)
    return written


def next_turn(
    text: str, images: Sequence[str], before: AssistantTurn | None = None
) -> list[dict[str, Any]]:
    """Write one turn of the user as `as_openai` writes it in a conversation.

    Args:
        text: What the user says.
        images: Data URLs beside it, in order.
        before: The model's turn that it answers; None at the beginning.
    """
    return _turn(user_message(text, len(images)), iter(images), before, None)


def _turn(
    message: Message, urls: Iterator[str], before: AssistantTurn | None, detail: str | None
) -> list[dict[str, Any]]:
    """Write a message of the system or the user; answers to calls come first."""
    parts = message["content"]
    written: list[dict[str, Any]] = []
    if message["role"] == "user" and before is not None and before.calls:
        words = "".join(part["text"] for part in parts if part["type"] == "text")
        for number, call in enumerate(before.calls):
            answer = _OTHER_CALL if number else words
            written.append({"role": "tool", "tool_call_id": call.id, "content": answer})
        parts = [part for part in parts if part["type"] != "text"]
    if parts:
        written.append({"role": message["role"], "content": _content(parts, urls, detail)})
    return written


def _content(parts: Sequence[dict[str, Any]], urls: Iterator[str], detail: str | None) -> Any:
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    extra = {} if detail is None else {"detail": detail}
    return [
        part
        if part["type"] == "text"
        else {"type": "image_url", "image_url": {"url": next(urls), **extra}}
        for part in parts
    ]
