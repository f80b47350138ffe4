"""Messages of a conversation, as chat templates of transformers and TRL take them."""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]
"""`{"role": "system" | "user" | "assistant", "content": [part, ...]}`; a part is
`{"type": "text", "text": ...}` or `{"type": "image"}`, whose images lie beside the messages, in
order. Qwen's chat templates and TRL take them as they are."""


def text_message(role: str, text: str) -> Message:
    """A message of one text."""
    return {"role": role, "content": [{"type": "text", "text": text}]}


def user_message(text: str, images: int = 1) -> Message:
    """Return a user turn: the image or images, then the text."""
    shown = [{"type": "image"} for _ in range(images)]
    return {"role": "user", "content": [*shown, {"type": "text", "text": text}]}
