"""A recorded episode as a conversation: what the chat environment would have shown, with answers.

Words and images come from `ChatView`, or `VolumeChatView` where volumes were played, so a model
fine-tuned on an export sees in training exactly what the environment will show it. Messages are
described at `medseg_gym.envs.views.messages.Message`.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from medseg_gym.envs.views.chat import ChatView
from medseg_gym.envs.views.messages import Message
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.replaying.rebuild import StoredCases
from medseg_gym.trajectories.replaying.volumes import rebuild_found
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


def conversation(trajectory: Trajectory, cases: StoredCases, view: ChatView) -> Conversation:
    """A whole episode.

    Args:
        trajectory: As stored.
        cases: Where its case is.
        view: How it is shown; a `VolumeChatView` for an episode on a volume.

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
    episode: Any = rebuild_found(trajectory, cases)
    return Conversation(view.messages(episode), [png(image) for image in view.images(episode)])
