"""The chat view: an episode as a conversation, text as prompts.

A conversation is made of an `Episode` and of what the model said in it; nothing else. So the
environment, the export of recorded trajectories and whoever replays one show the same words and
the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from gymnasium import spaces

from medseg_gym.cases import Case
from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.envs.views.chat_spaces import AnswerText, AnyText
from medseg_gym.envs.views.chat_texts import ChatTexts, read_texts, tool_schemas
from medseg_gym.envs.views.cut_answer import CutAnswer
from medseg_gym.envs.views.messages import Message, text_message, user_message
from medseg_gym.envs.views.protocol import Observations, Reading
from medseg_gym.envs.views.squares import Squares
from medseg_gym.episodes import Episode
from medseg_gym.errors import MedSegError, PromptError
from medseg_gym.prompts import ArrayCodec, Coordinates, Thinking, encode_tool_call, read_answer

OVERLAY_RGB = (40, 220, 90)
"""Of masks in images that models are shown: part of what checkpoints were trained on."""


def chat_coordinates(options: ChatOptions) -> Coordinates:
    """Return how a model writes places; pixels are those of the image that it is shown.

    Raises:
        PromptError: Unknown kind of coordinates.
    """
    if options.coordinates == "pixel":
        return Coordinates("pixel", options.image_size)
    return Coordinates(options.coordinates)


class ChatView:
    """Shows episodes as conversations; the truth is never in them.

    Args:
        options: Those of `ChatOptions` that concern the view; the others are not looked at.

    Attributes:
        image_keys: Entries of an observation that are the images of a turn, in the order in which
            a model is shown them.

    Raises:
        MedSegError: An option out of range.
    """

    image_keys: ClassVar[tuple[str, ...]] = ("image",)

    def __init__(self, options: ChatOptions | None = None) -> None:
        options = options or ChatOptions()
        if options.overlay not in ("fill", "outline", "none"):
            raise MedSegError(f"overlay must be fill, outline or none, got {options.overlay!r}")
        if not 0 <= options.overlay_strength <= 1:
            raise MedSegError(f"overlay_strength must be in 0..1, got {options.overlay_strength}")
        self._squares = Squares(options.image_size)
        self.side = self._squares.side
        self.texts = self._read_texts(options.texts)
        self.overlay, self.strength = options.overlay, float(options.overlay_strength)
        if options.thinking not in (True, False, "refuse"):
            raise MedSegError(f'thinking must be True, False or "refuse", got {options.thinking!r}')
        self.thinking: Thinking = (
            "refuse" if options.thinking == "refuse" else bool(options.thinking)
        )
        self.coordinates = chat_coordinates(options)
        self._tools = self._check_tools(options.tools)
        self._answers: WeakKeyDictionary[Episode, dict[int, str]] = WeakKeyDictionary()

    @staticmethod
    def _read_texts(texts: Any) -> ChatTexts:
        return read_texts(texts)

    @staticmethod
    def _check_tools(tools: Sequence[str]) -> tuple[str, ...]:
        return ArrayCodec(tools=tools).tools

    # what there is ------------------------------------------------------------------------------
    @property
    def tools(self) -> tuple[str, ...]:
        """Subset of `prompts.TOOLS` that the agent may use."""
        return self._tools

    @property
    def tool_schemas(self) -> list[dict[str, Any]]:
        """The tool calls as OpenAI's function schemas."""
        return tool_schemas(self.tools, self.coordinates)

    @property
    def system_messages(self) -> list[Message]:
        """System message that every conversation begins with; empty where there is none."""
        system = self.texts.system_prompt(self.tools, self.thinking is True, self.coordinates)
        return [text_message("system", system)] if system else []

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the view that decide the numbers of a run; JSON."""
        texts = {**vars(self.texts), "calls": dict(self.texts.calls)}
        return {
            "view": "chat",
            "image_size": self.side,
            "tools": list(self.tools),
            "overlay": self.overlay,
            "overlay_strength": self.strength,
            "thinking": self.thinking,
            "coordinates": self.coordinates.kind,
            "texts": texts,
        }

    @property
    def action_space(self) -> AnswerText:
        """Every str; samples are mostly tool calls."""
        return AnswerText(self.tools, coordinates=self.coordinates)

    @property
    def observation_space(self) -> spaces.Dict:
        """Newest user turn: `text`, and `image` (P, P, 3) uint8."""
        shape = (self.side, self.side, 3)
        return spaces.Dict({"text": AnyText(), "image": spaces.Box(0, 255, shape, np.uint8)})

    # what is shown ------------------------------------------------------------------------------
    @property
    def mask_side(self) -> int | None:
        """Side of the square at which masks are shown; None without an overlay."""
        return None if self.overlay == "none" else self.side

    def observe(self, episodes: Sequence[Episode]) -> Observations:
        """The newest user turns: `text` a tuple of n str, `image` (n, P, P, 3) uint8."""
        images = np.stack([self._squares.image(episode.case) for episode in episodes])
        # A mask that was never made need not be fetched from the device.
        masked = [i for i, e in enumerate(episodes) if e.state is not e.cleared]
        if masked and self.overlay != "none":
            masks = self._squares.masks_of([episodes[i].state for i in masked])
            for i, mask in zip(masked, masks, strict=True):
                self._paint(images[i], mask)
        return {"text": tuple(map(self._newest_text, episodes)), "image": images}

    def image(self, case: Case, mask: torch.Tensor | None = None) -> np.ndarray:
        """Return the image of a turn.

        Args:
            case: Whose image it is.
            mask: H x W bool; None for the plain image.

        Returns:
            P x P x 3 uint8, fresh.
        """
        image = self._squares.image(case).copy()
        if mask is not None and self.overlay != "none":
            self._paint(image, self._squares.masks([mask])[0])
        return image

    def _paint(self, image: np.ndarray, mask: np.ndarray) -> None:
        if self.overlay == "outline":
            shrunk = mask.copy()
            for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
                shrunk &= np.roll(mask, shift, axis)
            mask = mask & ~shrunk
        colour = np.array(OVERLAY_RGB) * self.strength
        image[mask] = (image[mask] * (1 - self.strength) + colour).astype(np.uint8)

    def _newest_text(self, episode: Episode) -> str:
        if episode.done:
            return self.texts.over
        return self._turn_text(episode, len(episode.steps))

    def _turn_text(self, episode: Episode, taken: int) -> str:
        """The user's turn after `taken` steps."""
        if taken == 0:
            return self._fill(self.texts.opening, episode, 0)
        valid = episode.steps[taken - 1].valid
        return self._fill(self.texts.turn if valid else self.texts.refused, episode, taken)

    def _fill(self, template: str, episode: Episode, taken: int) -> str:
        return template.format(**self._fields(episode, taken))

    def _fields(self, episode: Episode, taken: int) -> dict[str, Any]:
        left = episode.max_steps - taken
        return {
            "target": episode.case.target,
            "modality": episode.case.modality,
            "max_steps": episode.max_steps,
            "steps_left": left,
            "calls_left": f"{left} call{'' if left == 1 else 's'} left",
            "error": episode.steps[taken - 1].error if taken else "",
        }

    def messages(self, episode: Episode) -> list[Message]:
        """The whole conversation so far, see `Message`.

        It ends with the user turn that waits for an answer, or, when the episode is over, with the
        model's last answer. Each user turn has the images `image_keys`, see `images`. What a step
        said is what the model said; where that is not known (a replayed recording), the tool call
        of its prompt.

        Args:
            episode: Running or over.

        Raises:
            MedSegError: A step whose answer is not known and that holds no prompt.
        """
        messages = self.system_messages
        for turn, answer in enumerate(self.answers(episode)):
            messages.append(user_message(self._turn_text(episode, turn), len(self.image_keys)))
            messages.append(text_message("assistant", answer))
        if not episode.done:
            messages.append(user_message(self._newest_text(episode), len(self.image_keys)))
        return messages

    def images(self, episode: Episode) -> list[np.ndarray]:
        """Return the images of `messages`, in order, each P x P x 3 uint8."""
        states = [episode.start, *(step.state for step in episode.steps)]
        shown = states[: len(states) - 1] if episode.done else states
        return [
            self.image(episode.case, None if state is episode.cleared else state.mask)
            for state in shown
        ]

    def answers(self, episode: Episode) -> list[str]:
        """Return the model's answer in each step.

        Raises:
            MedSegError: A step whose answer is not known and that holds no prompt.
        """
        known = self._answers.get(episode, {})
        answers = []
        for number, step in enumerate(episode.steps):
            if number in known:
                answers.append(known[number])
            elif step.prompt is not None:
                answers.append(self.write_call(step.prompt))
            else:
                raise MedSegError(
                    f"case {episode.case.key!r}: step {number} holds no readable action, and what "
                    "was said is not known"
                )
        return answers

    def write_call(self, prompt: Any) -> str:
        """Return the tool call that asks for a prompt."""
        return encode_tool_call(prompt, self.coordinates)

    def row(self, observations: Observations, index: int) -> dict[str, Any]:
        """One slot's observation out of a batch."""
        images = self.turn_images(observations, index)
        shown = {k: image.copy() for k, image in zip(self.image_keys, images, strict=True)}
        return {"text": observations["text"][index], **shown}

    @classmethod
    def turn_images(cls, observations: Observations, index: int) -> list[np.ndarray]:
        """Return the images of one slot's turn out of a batch, in the order they are shown."""
        return [observations[key][index] for key in cls.image_keys]

    # what is said -------------------------------------------------------------------------------
    def check_actions(self, actions: Any, count: int) -> list[str | None]:
        """Answers of all slots.

        Args:
            actions: A sequence of `count` entries, each a str or None.
            count: Slots.

        Raises:
            MedSegError: Another length, or an entry that is neither.
        """
        answers = None if isinstance(actions, (str, bytes)) else list(actions)
        if answers is None or len(answers) != count:
            got = "a str" if answers is None else f"{len(answers)} entries"
            raise MedSegError(
                f"actions must be a sequence of {count} answers, one str (or None) per slot, "
                f"got {got}"
            )
        for slot, answer in enumerate(answers):
            if answer is not None and not isinstance(answer, str):
                raise MedSegError(
                    f"the answer of slot {slot} must be a str or None, got {type(answer).__name__}"
                )
        # Plain texts of subclasses (numpy's, say), but a cut answer stays one.
        return [a if a is None or isinstance(a, CutAnswer) else str(a) for a in answers]

    def idle(self, actions: Any, slots: Sequence[int]) -> list[str | None]:
        """Answers with None in these slots, so that they sit the step out."""
        idle = set(slots)
        return [None if i in idle else action for i, action in enumerate(actions)]

    def read(self, actions: Sequence[str]) -> list[Reading]:
        """Read what answers ask for; no str makes it raise."""
        readings = []
        for action in actions:
            answer = read_answer(action, self.tools, self.thinking, self.coordinates)
            prompt = PromptError(answer.error) if answer.prompt is None else answer.prompt
            readings.append(Reading(prompt, {"repairs": ", ".join(answer.repairs)}))
        return readings

    def keep(self, episodes: Sequence[Episode], actions: Sequence[str]) -> None:
        """Remember answers word for word."""
        for episode, action in zip(episodes, actions, strict=True):
            self._answers.setdefault(episode, {})[len(episode.steps) - 1] = action

    def carry_over(self, episode: Episode, forked: Episode) -> None:
        """Remember the answers so far as those of the forked episode, too."""
        if episode in self._answers:
            self._answers[forked] = dict(self._answers[episode])

    def start_info(self) -> dict[str, Any]:
        """`repairs`: what was forgiven in the newest answer."""
        return {"repairs": ""}
