"""MedSegChatVectorEnv: many conversations, one decoder call per step."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.envs.options import EnvOptions
from medseg_gym.envs.vector import CoreVectorEnv
from medseg_gym.envs.views.chat import ChatView
from medseg_gym.envs.views.messages import Message


class MedSegChatVectorEnv(CoreVectorEnv):
    """`MedSegChat-v0` in `num_envs` slots, from `gym.make_vec("MedSegChat-v0", num_envs=16)`.

    Every slot is a `MedSegChatEnv` (see there). Seeds, reset options and the three autoreset modes
    are those of `MedSegVectorEnv`.

    **Actions**: a sequence with one str per slot, or None: that slot sits the step out. Nothing
    happens in it: no turn is used, its reward is 0, its flags and observation stay and its `info`
    has no entry. (No answer at all is "", which costs a turn.) Slots that have ended are treated as
    their autoreset mode says, whatever they answer.

    **Observations**: `text` is a tuple of n str, `image` (n, P, P, 3) uint8.

    Args:
        num_envs: Slots.
        max_episode_steps: A time limit on top of `max_steps`; reaching it truncates.
        autoreset_mode: "next_step" (default), "same_step" or "disabled".
        render_mode: "rgb_array" makes `render` return one frame per slot.
        **options: See `ChatOptions`.

    Raises:
        MedSegError: An argument, case source or backbone that cannot be used.

    Example:
        >>> import gymnasium as gym, medseg_gym
        >>> envs = gym.make_vec("MedSegChat-v0", num_envs=2, backbone="ellipse", image_size=96)
        >>> observations, infos = envs.reset(seed=0)
        >>> answer = '<tool_call>{"name": "stop_action", "arguments": {}}</tool_call>'
        >>> observations, rewards, terminations, truncations, infos = envs.step([answer, None])
        >>> terminations.tolist()
        [True, False]
        >>> envs.close()
    """

    options_class: ClassVar[type[EnvOptions]] = ChatOptions

    @property
    def view(self) -> ChatView:
        """Translator between episodes and conversations."""
        view = self.core.view
        assert isinstance(view, ChatView)
        return view

    def messages(self, slot: int) -> list[Message]:
        """Return a slot's conversation so far, see `chat_view.Message` and `ChatView.messages`."""
        return self.view.messages(self.engine.episode(slot))

    def images(self, slot: int) -> list[np.ndarray]:
        """Return the images of `messages(slot)`, in order, each (P, P, 3) uint8."""
        return self.view.images(self.engine.episode(slot))

    @property
    def system_messages(self) -> list[Message]:
        """System message that every conversation begins with; empty where there is none."""
        return self.view.system_messages

    @property
    def tool_schemas(self) -> list[dict[str, Any]]:
        """The tool calls as OpenAI's function schemas."""
        return self.view.tool_schemas
