"""MedSegVectorEnv: many episodes seen as arrays, one decoder call per step."""

from __future__ import annotations

from medseg_gym.envs.vector import CoreVectorEnv


class MedSegVectorEnv(CoreVectorEnv):
    """`MedSeg-v0` in `num_envs` slots, from `gym.make_vec("MedSeg-v0", num_envs=16)`.

    Every slot is a `MedSegEnv` (see there for action, observation, reward and info) with a
    generator of its own; all slots that decode in a step share one call of the backbone, and slots
    on the same image share its embedding. Returned arrays are fresh, observation spaces copies.
    Actions are checked alike on every step, those of slots that have ended as well.

    **Seeds.** `reset(seed=s)` seeds slot i with s + i; a sequence gives each slot its own.

    **Reset options.** `case`: the key that every slot plays, or a sequence with a key or None per
    slot. `reset_mask`: (num_envs,) bool, the slots to reset; the others keep their episode.

    **Autoreset.** "next_step" (default): the step after an end ignores that slot's action and
    returns the next episode's first observation. "same_step": that observation comes at once, the
    last one is in `info["final_obs"]`, its info in `info["final_info"]`. "disabled": slots are
    reset by the caller through `reset_mask`; until then a finished slot idles: its action is
    ignored, its reward is 0, its flags and observation stay, and it costs no decoding.

    **Forks.** `fork(sources, targets)` copies running episodes into other slots exactly, from where
    both go on by themselves; `clone_state(slots)` keeps states and `restore_state(slots, states)`
    goes back to them.

    **Attributes** beside gymnasium's: `episodes`, the `Episode` of every slot, truth included, None
    before its first reset, for experts, recorders and people; `source`, the `CaseSource` that is
    played; `backbone`, the segmenter; `codec`, the `ArrayCodec` that turns prompts into actions and
    back; `engine`, with which experts preview clicks; `view`, the `ArrayView`. Wrapped environments
    have them under `.unwrapped`.

    Args:
        num_envs: Slots.
        max_episode_steps: A time limit on top of `max_steps`; reaching it truncates.
        autoreset_mode: As above.
        render_mode: "rgb_array" makes `render` return one frame per slot, all of one even shape.
        **options: See `EnvOptions`.

    Raises:
        MedSegError: An argument, case source or backbone that cannot be used.

    Example:
        >>> import gymnasium as gym, numpy as np, medseg_gym
        >>> envs = gym.make_vec(
        ...     "MedSeg-v0", num_envs=3, backbone="ellipse", autoreset_mode="disabled"
        ... )
        >>> observations, infos = envs.reset(seed=0)
        >>> observations["image"].shape
        (3, 128, 128, 3)
        >>> actions = np.array([[0, 130, 180, 480, 710], [5, 0, 0, 0, 0], [1, 500, 500, 0, 0]])
        >>> observations, rewards, terminations, truncations, infos = envs.step(actions)
        >>> terminations.tolist()
        [False, True, False]
        >>> observations, infos = envs.reset(options={"reset_mask": terminations})  # slot 1 alone
        >>> observations["steps_left"][:, 0] == 1
        array([False,  True, False])
        >>> envs.close()
    """
