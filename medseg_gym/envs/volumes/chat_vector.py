"""MedSegVolumeChatVectorEnv: conversations about many scans at once."""

from __future__ import annotations

from medseg_gym.envs.chat_vector import MedSegChatVectorEnv
from medseg_gym.envs.volumes.chat import VolumeChatCore
from medseg_gym.envs.volumes.chat_options import VolumeChatOptions


class MedSegVolumeChatVectorEnv(MedSegChatVectorEnv):
    """`MedSegVolumeChat-v0` in `num_envs` slots.

    Every slot is a `MedSegVolumeChatEnv` (see there). Actions, None among them, seeds, reset
    options and autoreset modes are those of `MedSegChatVectorEnv`; masks are made together as in
    `MedSegVolumeVectorEnv`.

    **Observations**: `text` is a tuple of n str, `image` (n, P, P, 3) and `overview` (n, O, 3 O, 3)
    uint8.

    Args:
        num_envs: Slots.
        max_episode_steps: A time limit on top of `max_steps`; reaching it truncates.
        autoreset_mode: "next_step" (default), "same_step" or "disabled".
        render_mode: "rgb_array" makes `render` return one frame per slot.
        **options: See `VolumeChatOptions`.

    Raises:
        MedSegError: An argument, volume source or backbone that cannot be used.

    Example:
        >>> import gymnasium as gym, medseg_gym
        >>> envs = gym.make_vec(
        ...     "MedSegVolumeChat-v0", num_envs=2, backbone="ellipse", image_size=96
        ... )
        >>> observations, infos = envs.reset(seed=0)
        >>> answer = '<tool_call>{"name": "stop_action", "arguments": {}}</tool_call>'
        >>> observations, rewards, terminations, truncations, infos = envs.step([answer, None])
        >>> terminations.tolist()
        [True, False]
        >>> envs.close()
    """

    options_class = VolumeChatOptions
    core_class = VolumeChatCore
