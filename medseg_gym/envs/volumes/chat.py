"""MedSegVolumeChatEnv: one model, one scan, one target, in words and images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medseg_gym.envs.chat import MedSegChatEnv
from medseg_gym.envs.volumes.chat_options import VolumeChatOptions
from medseg_gym.envs.volumes.chat_view import VolumeChatView
from medseg_gym.envs.volumes.core import VolumeCore
from medseg_gym.episodes import StepResult


class VolumeChatCore(VolumeCore):
    """Slots that play volumes in conversations."""

    options: VolumeChatOptions
    view: Any

    def _make_view(self) -> VolumeChatView:
        return VolumeChatView(self.options)

    def step(self, slots: Sequence[int], actions: Any) -> list[StepResult]:
        """Take what one answer per slot asks for, and remember the answers."""
        episodes = self.episodes(slots)
        readings = self.view.read(actions, episodes)
        prompts: list[Any] = [reading.prompt for reading in readings]
        results = self.engine.step(slots, prompts)
        self.view.keep(episodes, actions)
        for result, reading in zip(results, readings, strict=True):
            result.info.update(reading.info)
        return results


class MedSegVolumeChatEnv(MedSegChatEnv):
    """Segment a scan by tool calls in a conversation. Id: `MedSegVolumeChat-v0`.

    The same episodes as `MedSegVolumeEnv` (volumes, prompts, propagation, reward, ends), seen by a
    vision-language model: every user turn is the slice in view, an overview and a text, every
    answer one tool call.

    **Action.** Any str, read by the rules of `MedSegChatEnv`. The calls:

    | call | arguments | meaning |
    |---|---|---|
    | `add_bbox` | `slice`, `bbox_2d: [x1, y1, x2, y2]` | enclose the target on a slice |
    | `add_point` | `slice`, `point_2d: [x, y]`, `point_type` | click on a slice |
    | `propagate_action` | | carry the masks of slices with prompts through the others |
    | `look_action` | `slice` | move the view to a slice |
    | `undo_action` | | back to the state before the last valid box, click, propagate or clear |
    | `clear_action` | | drop prompts and masks of all slices |
    | `stop_action` | | accept the mask and end the episode |

    Slices are whole numbers from 0; places are as the option `coordinates` says, 0..999 of the
    slice's width and height by default. An answer that cannot be read, or that names a slice that
    the volume does not have, uses up a step and changes nothing; why is told to the model in the
    next turn and stands in `info["error"]`. No str makes `step` raise.

    **Observation.** The newest user turn, a `Dict`; P = `image_size` (512), O = `overview_size`
    (128).

    | key | space | meaning |
    |---|---|---|
    | text | any str | target, slice in view and turns left, or what the last call did |
    | image | Box(0, 255, (P, P, 3), uint8) | the slice in view under its mask in green |
    | overview | Box(0, 255, (O, 3 O, 3), uint8) | maximum projections along slices, rows and \
columns under the mask's, side by side; a yellow line at the slice in view |

    After the end, `text` is `ChatTexts.over`. `messages()` is the whole conversation and `images()`
    its images, two for every user turn: the slice, then the overview.

    **Reward, end, reset, info**: as in `MedSegVolumeEnv`; `info` also has `repairs`. The truth is
    in none of the messages.

    Args:
        render_mode: "rgb_array" gives a frame, "human" shows it in a window where there is one.
        **options: See `VolumeChatOptions`.

    Raises:
        MedSegError: An argument, volume source or backbone that cannot be used.

    Example:
        >>> import gymnasium as gym, medseg_gym
        >>> env = gym.make("MedSegVolumeChat-v0", backbone="ellipse", image_size=96)
        >>> observation, info = env.reset(options={"case": "phantoms-volume/train/000000-4"})
        >>> sorted(observation), observation["overview"].shape
        (['image', 'overview', 'text'], (128, 384, 3))
        >>> answer = '<tool_call>{"name": "look_action", "arguments": {"slice": 3}}</tool_call>'
        >>> observation, reward, terminated, truncated, info = env.step(answer)
        >>> info["tool"], info["slice"], len(env.unwrapped.images())
        ('look', 3, 4)
        >>> env.close()
    """

    options_class = VolumeChatOptions
    core_class = VolumeChatCore
