"""MedSegVolumeVectorEnv: many volumes at once, one decoder call per step of propagation."""

from __future__ import annotations

from medseg_gym.envs.vector import CoreVectorEnv
from medseg_gym.envs.volumes.core import VolumeCore, VolumeEnvAttributes
from medseg_gym.envs.volumes.options import VolumeOptions


class MedSegVolumeVectorEnv(VolumeEnvAttributes, CoreVectorEnv):  # type: ignore[misc]  # a core of volumes
    """`MedSegVolume-v0` in `num_envs` slots, from `gym.make_vec("MedSegVolume-v0", num_envs=8)`.

    Every slot is a `MedSegVolumeEnv` (see there for action, observation, reward and info) with a
    generator of its own. Prompts of all slots share one call of the backbone; where some of them
    propagate, each step of propagation is one call for both directions of all volumes. Slots on the
    same scan share its embeddings.

    Seeds, reset options, autoreset modes and attributes are those of `MedSegVectorEnv`, with
    `VolumeEpisode`s in `episodes`, a `VolumeSource`, `VolumeCodec` and `VolumeEngine`.

    Args:
        num_envs: Slots.
        max_episode_steps: A time limit on top of `max_steps`; reaching it truncates.
        autoreset_mode: See `MedSegVectorEnv`.
        render_mode: "rgb_array" makes `render` return one frame per slot, all of one even shape.
        **options: See `VolumeOptions`.

    Raises:
        MedSegError: An argument, volume source or backbone that cannot be used.

    Example:
        >>> import gymnasium as gym, numpy as np, medseg_gym
        >>> envs = gym.make_vec("MedSegVolume-v0", num_envs=2, backbone="ellipse")
        >>> observations, infos = envs.reset(seed=0)
        >>> observations["overview_mask"].shape
        (2, 64, 64, 3)
        >>> actions = np.array([[0, 32, 300, 300, 600, 600], [7, 0, 0, 0, 0, 0]])  # box, stop
        >>> observations, rewards, terminations, truncations, infos = envs.step(actions)
        >>> terminations.tolist(), infos["prompted_slices"].tolist()
        ([False, True], [1, 0])
        >>> envs.close()
    """

    options_class = VolumeOptions
    core_class = VolumeCore
