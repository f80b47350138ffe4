"""An episode as a conversation: the system prompt, the turns, and the pictures that go with them.

Messages are what Qwen's chat templates and TRL's `SFTTrainer` take: a role and a list of parts,
`{"type": "text", "text": ...}` or `{"type": "image"}`; the pictures lie beside them, in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from medseg_gym.cases import Case
from medseg_gym.envs.rendering import draw_case
from medseg_gym.prompts import TOOL_CALL_BINS, encode_tool_call
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.trajectory import RecordedStep, Trajectory

Message = dict[str, Any]

SYSTEM_PROMPT = f"""\
You outline a structure in a medical image by steering a segmentation tool. Every answer is one \
tool call; then you are shown the image again with the mask so far in green.

Coordinates are whole numbers from 0 to {TOOL_CALL_BINS - 1}: x from left to right, y from top to \
bottom, whatever the size of the image. The calls:
<tool_call>{{"name": "add_bbox", "arguments": {{"bbox_2d": [x1, y1, x2, y2]}}}}</tool_call> \
encloses the structure and replaces an earlier box.
<tool_call>{{"name": "add_point", "arguments": {{"point_2d": [x, y], "point_type": "positive"}}}}\
</tool_call> clicks on what is missing; "negative" on what does not belong.
<tool_call>{{"name": "undo_action", "arguments": {{}}}}</tool_call> takes the last prompt back.
<tool_call>{{"name": "clear_action", "arguments": {{}}}}</tool_call> starts over without a mask.
<tool_call>{{"name": "stop_action", "arguments": {{}}}}</tool_call> accepts the mask and ends.

Stop as soon as the mask is good, or at once if the structure is not in the image."""


@dataclass(frozen=True)
class Conversation:
    """Messages and the pictures that their image parts stand for, as PNG."""

    messages: list[Message]
    images: list[bytes]


def opening_text(target: str, max_steps: int) -> str:
    """The user's first turn."""
    return f"Segment: {target}. You have at most {max_steps} calls."


def turn_text(step: RecordedStep, steps_left: int) -> str:
    """The user's turn after a step."""
    calls = f"{steps_left} call{'' if steps_left == 1 else 's'} left."
    if not step.valid:
        return f"That call changed nothing: {step.error}. {calls}"
    return f"This is the mask so far. {calls}"


def png(image: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint8 or (H, W) bool as PNG."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def picture(case: Case, mask: np.ndarray | None, side: int) -> bytes:
    """The image with the mask in half-transparent green, its longer edge at most `side`, as PNG."""
    return png(draw_case(case.image, mask, side=min(side, max(case.image.shape[:2]))))


def _message(role: str, *parts: str | None) -> Message:
    content = [
        {"type": "image", "text": None} if part is None else {"type": "text", "text": part}
        for part in parts
    ]
    return {"role": role, "content": content}


def opening(target: str, max_steps: int) -> list[Message]:
    """System prompt and first user turn, which shows one picture."""
    return [
        _message("system", SYSTEM_PROMPT),
        _message("user", None, opening_text(target, max_steps)),
    ]


def conversation(trajectory: Trajectory, case: Case, side: int) -> Conversation:
    """A whole episode.

    Args:
        trajectory: As stored.
        case: From `StoredCases.find`.
        side: Longest edge of a picture, in pixels.

    Raises:
        TrajectoryError: An action was unreadable, so that there is nothing the assistant said.
    """
    max_steps = int(trajectory.facts.options["max_steps"])
    messages = opening(trajectory.facts.target, max_steps)
    images = [picture(case, None, side)]
    masks = trajectory.masks
    for number, step in enumerate(trajectory.steps):
        if step.prompt is None:
            raise TrajectoryError(f"{trajectory.key}: step {number} holds no readable action")
        messages.append(_message("assistant", encode_tool_call(step.prompt)))
        if number + 1 < len(trajectory.steps):
            text = turn_text(step, max_steps - number - 1)
            messages.append(_message("user", None, text))
            images.append(picture(case, masks[number], side))
    return Conversation(messages, images)
