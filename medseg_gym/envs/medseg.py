"""MedSegEnv: one agent, one image, one target."""

from __future__ import annotations

from medseg_gym.envs.single import CoreEnv


class MedSegEnv(CoreEnv):
    """Segment a medical image by prompting a promptable segmenter. Id: `MedSeg-v0`.

    **Episode.** One case: an image, a target named in words, a truth mask. The agent adds boxes and
    clicks, takes them back, and stops; the segmenter answers every prompt with a mask.

    **Action.** `MultiDiscrete([6, bins, bins, bins, bins])`: tool, x1, y1, x2, y2.

    | tool | meaning | uses |
    |---|---|---|
    | 0 box | enclose the target; replaces an earlier box | x1 y1 x2 y2, corners in any order |
    | 1 positive point | click on what is missing | x1 y1 |
    | 2 negative point | click on what is too much | x1 y1 |
    | 3 undo | back to the state before the last valid add or clear | |
    | 4 clear | drop prompts, logits and mask | |
    | 5 stop | accept the mask and end the episode | |

    Cell v of `bins` (default 1000) stands for the fraction (v + 0.5) / bins of width or height.
    With `tools=[...]` the first entry indexes that subset, in the order above.

    **Observation.** A flat `Dict`; S = `image_size` (default 128). Image, mask and prompts are the
    case squashed to S x S, so that a fraction is the same place in all of them.

    | key | space | meaning |
    |---|---|---|
    | image | Box(0, 255, (S, S, 3), uint8) | the image, RGB |
    | mask | Box(0, 255, (S, S, 1), uint8) | the mask now, 0 or 255 |
    | prompts | Box(0, 255, (S, S, 3), uint8) | positive clicks, negative clicks, box; 0 or 255 |
    | target | Discrete(1 + number of targets) | 1 + index in `targets`; 0 for any other text |
    | steps_left | Box(0, 1, (1,), float32) | actions left / max_steps |

    **Reward.** By default `dice_gain`: dice_t - dice_{t-1} - 0.01, where Stop costs nothing. The
    return is Dice_T - Dice_0 - cost. Masks and Dice live at the truth's own size; an empty mask
    against an empty truth scores 1, so Dice_0 is 0, or 1 where the target is absent.

    **End.** Stop, or the last of `max_steps` (default 5) actions, terminates the episode.
    `truncated` is always False: it belongs to an outer time limit.

    **Invalid actions** (a box without area, undo or clear with nothing to take back) use up a step,
    cost what any action costs, change nothing, and are explained in `info["error"]`.

    **Reset.** `reset(seed=...)` seeds the draw of cases; `reset(options={"case": KEY})` plays a
    given one.

    **info**, scalars only: `dice`, `iou`, `case` (key), `tool`, `valid`, `error`, `cost`,
    `stopped`, and the terms of the reward; the step that ends the episode also has the entries
    `LAST_INFO` of its `EpisodeSummary` (`episode_return`, `turns`, ...). It is for people and logs:
    the observation never tells the truth.

    **Attributes** beside gymnasium's: `episodes`, the `Episode` of every slot (a list of one here),
    truth included, for experts, recorders and people; `source`, the `CaseSource` that is played;
    `backbone`, the segmenter; `codec`, the `ArrayCodec` that turns prompts into actions and back;
    `engine`, with which experts preview clicks; `view`, the `ArrayView`. Wrapped environments have
    them under `.unwrapped`.

    Args:
        render_mode: "rgb_array" gives a frame, "human" shows it in a window where there is one.
        **options: See `EnvOptions`.

    Raises:
        MedSegError: An argument, case source or backbone that cannot be used.

    Example:
        >>> import gymnasium as gym, medseg_gym
        >>> env = gym.make("MedSeg-v0", backbone="ellipse")
        >>> observation, info = env.reset(seed=0)
        >>> observation["image"].shape, info["case"], info["dice"]
        ((128, 128, 3), 'img2d-nucleus063', 0.0)
        >>> box, stop = [0, 130, 180, 480, 710], [5, 0, 0, 0, 0]
        >>> observation, reward, terminated, truncated, info = env.step(box)
        >>> info["tool"], round(info["dice"] - reward, 2)  # a step costs 0.01
        ('box', 0.01)
        >>> observation, reward, terminated, truncated, info = env.step(stop)
        >>> float(reward), terminated, info["stopped"]
        (0.0, True, True)
        >>> env.close()

        A given case, and an action that changes nothing:

        >>> env = gym.make("MedSeg-v0", backbone="ellipse", cases="phantoms:abdomen")
        >>> observation, info = env.reset(options={"case": env.unwrapped.source.keys[3]})
        >>> observation, reward, terminated, truncated, info = env.step([3, 0, 0, 0, 0])  # undo
        >>> info["valid"], round(float(reward), 2)
        (False, -0.01)
        >>> env.close()
    """
