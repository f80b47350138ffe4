"""A recorded episode as a conversation: what `MedSegChat-v0` would have shown, with its answers.

Words and images come from `ChatView`, so a model fine-tuned on an export sees in training exactly
what the environment will show it. Messages are described at
`medseg_gym.envs.views.messages.Message`.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from medseg_gym.cases import Case
from medseg_gym.envs.views.chat import ChatView
from medseg_gym.envs.views.messages import Message
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.replaying.rebuild import rebuild_episode
from medseg_gym.trajectories.trajectory import Trajectory


@dataclass(frozen=True)
class Conversation:
    """Messages and the images that their image parts stand for, as PNG."""

    messages: list[Message]
    images: list[bytes]


def png(image: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint8 or (H, W) bool as PNG."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def conversation(trajectory: Trajectory, case: Case, view: ChatView) -> Conversation:
    """A whole episode.

    Args:
        trajectory: As stored.
        case: From `StoredCases.find`.
        view: How it is shown.

    Raises:
        TrajectoryError: An action was unreadable, so that there is nothing the assistant said, or
            the view has not its tool.
    """
    for number, step in enumerate(trajectory.steps):
        if step.prompt is None:
            raise TrajectoryError(f"{trajectory.key}: step {number} holds no readable action")
        if step.tool not in view.tools:
            raise TrajectoryError(
                f"{trajectory.key}: step {number} uses the tool {step.tool!r}, which is not among "
                f"those of the chat, {view.tools}"
            )
    episode = rebuild_episode(trajectory, case)
    return Conversation(view.messages(episode), [png(image) for image in view.images(episode)])
