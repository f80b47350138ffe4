"""MedSegVolumeEnv: one agent, one scan, one target."""

from __future__ import annotations

from medseg_gym.envs.single import CoreEnv
from medseg_gym.envs.volumes.core import VolumeCore, VolumeEnvAttributes
from medseg_gym.envs.volumes.options import VolumeOptions


class MedSegVolumeEnv(VolumeEnvAttributes, CoreEnv):  # type: ignore[misc]  # a core of volumes
    """Segment a scan by prompting some of its slices. Id: `MedSegVolume-v0`.

    **Episode.** One case: a volume of D slices, a target named in words, a truth mask. The agent
    puts boxes and clicks on slices of its choice, has the masks of those slices propagated through
    the others, takes back what went wrong, and stops.

    **Action.** `MultiDiscrete([8, slices, bins, bins, bins, bins])`: tool, slice, x1, y1, x2, y2.

    | tool | meaning | uses |
    |---|---|---|
    | 0 box | enclose the target on a slice; replaces an earlier box there | slice x1 y1 x2 y2 |
    | 1 positive point | click on what is missing on a slice | slice x1 y1 |
    | 2 negative point | click on what is too much on a slice | slice x1 y1 |
    | 3 propagate | carry the masks of all slices with prompts through the others | |
    | 4 look | move the view to a slice | slice |
    | 5 undo | back to the state before the last valid box, click, propagate or clear | |
    | 6 clear | drop prompts, logits and masks of all slices | |
    | 7 stop | accept the mask and end the episode | |

    Cell v of `slices` (default 64) stands for slice floor((v + 0.5) / slices * D): the space is the
    same for volumes of any depth, and with `slices` = D the cell is the slice's index. Cell v of
    `bins` (default 1000) stands for the fraction (v + 0.5) / bins of width or height. With
    `tools=[...]` the first entry indexes that subset, in the order above.

    **Propagation.** In both directions from every slice with a box or a positive click, slice by
    slice: the neighbour's mask becomes a box and, where the backbone takes one, a mask input. It
    ends where the mask dies out (see `PropagationOptions`). Two slices with prompts meet half way;
    where their masks do not fit together, the larger one goes on. Slices with prompts of their own
    are never overwritten; those that an earlier propagation filled are made anew. Prompts on a
    slice that propagation had filled correct it: what comes from elsewhere passes through it. So do
    negative clicks alone. Prompts that leave a slice's mask empty say that the target ends there.
    Backbones with a memory of slices (SAM 2, MedSAM2) carry masks by that instead, see
    `PropagationOptions.memory`.

    **Observation.** A flat `Dict`; S = `image_size` (default 128), O = `overview_size` (64).

    | key | space | meaning |
    |---|---|---|
    | image | Box(0, 255, (S, S, 3), uint8) | the slice in view, squashed to S x S |
    | mask | Box(0, 255, (S, S, 1), uint8) | its mask now, 0 or 255 |
    | prompts | Box(0, 255, (S, S, 3), uint8) | its positive clicks, negative clicks, box |
    | overview | Box(0, 255, (O, O, 3), uint8) | maximum of the image along slices, rows, columns |
    | overview_mask | Box(0, 255, (O, O, 3), uint8) | the mask's projections along the same |
    | slice | Box(0, 1, (1,), float32) | (index of the slice in view + 0.5) / D |
    | target | Discrete(1 + number of targets) | 1 + index in `targets`; 0 for any other text |
    | steps_left | Box(0, 1, (1,), float32) | actions left / max_steps |

    The view begins at the middle slice; a box, a click or a look moves it to its slice.

    **Reward.** By default `dice_gain` in 3D: dice_t - dice_{t-1} - 0.01, where Stop costs nothing;
    the return is Dice_T - Dice_0 - cost. Dice counts voxels, at the truth's own size.

    **End.** Stop, or the last of `max_steps` (default 10) actions, terminates the episode.
    `truncated` is always False: it belongs to an outer time limit.

    **Invalid actions** (a box without area, propagate without a mask to carry, undo or clear with
    nothing to take back) use up a step, cost what any action costs, change nothing, and are
    explained in `info["error"]`.

    **Reset.** `reset(seed=...)` seeds the draw of cases; `reset(options={"case": KEY})` plays a
    given one.

    **info**, scalars only: those of `MedSegEnv`, with `dice` and `iou` in 3D, and `slice` (index in
    view), `prompted_slices`, `mask_slices` (slices with prompts, with a mask).

    **Attributes** beside gymnasium's: `episodes`, the `VolumeEpisode` of every slot, truth
    included; `source`, the `VolumeSource`; `backbone`; `codec`, the `VolumeCodec`; `engine`, the
    `VolumeEngine`; `view`. Wrapped environments have them under `.unwrapped`.

    Args:
        render_mode: "rgb_array" gives a frame, "human" shows it in a window where there is one.
        **options: See `VolumeOptions`.

    Raises:
        MedSegError: An argument, volume source or backbone that cannot be used.

    Example:
        >>> import gymnasium as gym, medseg_gym
        >>> env = gym.make("MedSegVolume-v0", backbone="ellipse", slices=32)
        >>> observation, info = env.reset(options={"case": "phantoms-volume/train/000000-4"})
        >>> observation["image"].shape, observation["overview"].shape, info["dice"]
        ((128, 128, 3), (64, 64, 3), 0.0)
        >>> observation, reward, terminated, truncated, info = env.step([3, 0, 0, 0, 0, 0])
        >>> info["valid"], info["error"]
        (False, 'no slice with a box or a positive click has a mask to propagate')
        >>> env.close()
    """

    options_class = VolumeOptions
    core_class = VolumeCore
