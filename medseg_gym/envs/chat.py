"""MedSegChatEnv: one model, one image, one target, in words and images."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

import medseg_gym.envs.views.shared_texts  # noqa: F401  (so that AsyncVectorEnv can share texts)
from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.envs.options import EnvOptions
from medseg_gym.envs.single import CoreEnv
from medseg_gym.envs.views.chat import ChatView
from medseg_gym.envs.views.messages import Message


class MedSegChatEnv(CoreEnv):
    """Segment a medical image by tool calls in a conversation. Id: `MedSegChat-v0`.

    The same episodes as `MedSegEnv` (cases, prompts, masks, reward, ends), seen by a
    vision-language model: every user turn is an image and a text, every answer one tool call.

    **Action.** Any str, read by `prompts.read_answer`, whose module lists the rules (dialects, what
    is repaired, which of several calls counts). The calls, with whole numbers 0..999 of width and
    height (or as the option `coordinates` says):

    | call | arguments | meaning |
    |---|---|---|
    | `add_bbox` | `bbox_2d: [x1, y1, x2, y2]` | enclose the target; replaces an earlier box |
    | `add_point` | `point_2d: [x, y]`, `point_type` | click on what is missing or too much |
    | `undo_action` | | back to the state before the last valid add or clear |
    | `clear_action` | | drop prompts, logits and mask |
    | `stop_action` | | accept the mask and end the episode |

    written `<tool_call>{"name": "add_bbox", "arguments": {"bbox_2d": [1, 2, 3, 4]}}</tool_call>`.
    `action_space.sample()` gives such calls. An answer that cannot be read uses up a step, costs
    what any action costs and changes nothing; why is told to the model in the next turn and stands
    in `info["error"]`. No str makes `step` raise.

    **Observation.** The newest user turn, a `Dict`; P = `image_size` (default 512).

    | key | space | meaning |
    |---|---|---|
    | text | any str | what the user says: target and turns left, or what the last call did |
    | image | Box(0, 255, (P, P, 3), uint8) | the case squashed to P x P under the mask in green |

    After the end, `text` is `ChatTexts.over` and `image` shows the final mask. `messages()` is the
    whole conversation and `images()` its images; how much of it a model gets is its policy's
    business.

    **Reward, end, reset, info**: as in `MedSegEnv`; `info` also has `repairs`, what was forgiven or
    left alone in the newest answer. The truth is in none of the messages.

    Args:
        render_mode: "rgb_array" gives a frame, "human" shows it in a window where there is one.
        **options: See `ChatOptions`.

    Raises:
        MedSegError: An argument, case source or backbone that cannot be used.

    Example:
        >>> import gymnasium as gym, medseg_gym
        >>> env = gym.make("MedSegChat-v0", backbone="ellipse", image_size=96)
        >>> observation, info = env.reset(seed=0)
        >>> observation["text"]
        'Segment: cell nucleus in fluorescence microscopy. You have at most 5 calls.'
        >>> observation, reward, terminated, truncated, info = env.step("Let me see.")
        >>> info["error"]
        'no <tool_call>...</tool_call> found; answer with one tool call'
        >>> [message["role"] for message in env.unwrapped.messages()]
        ['system', 'user', 'assistant', 'user']
        >>> env.close()
    """

    options_class: ClassVar[type[EnvOptions]] = ChatOptions

    @property
    def view(self) -> ChatView:
        """Translator between episodes and conversations."""
        view = self.core.view
        assert isinstance(view, ChatView)
        return view

    def messages(self) -> list[Message]:
        """Return the conversation so far, see `chat_view.Message` and `ChatView.messages`."""
        return self.view.messages(self.episode)

    def images(self) -> list[np.ndarray]:
        """Return the images of `messages()`, in order, each (P, P, 3) uint8."""
        return self.view.images(self.episode)

    @property
    def tool_schemas(self) -> list[dict[str, Any]]:
        """The tool calls as OpenAI's function schemas."""
        return self.view.tool_schemas
