"""An environment for TRL's `environment_factory`: tool calls as methods, one episode a rollout."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from PIL import Image

from medseg_gym.cases import load_cases
from medseg_gym.envs.chat import MedSegChatEnv
from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.envs.views.chat import chat_coordinates
from medseg_gym.episodes import EpisodeSummary
from medseg_gym.errors import PolicyError
from medseg_gym.prompts import GRID, Coordinates, call_names, write_call

Content = list[dict[str, Any]]
"""Parts of a message: `{"type": "image", "image": PIL}` and `{"type": "text", "text": ...}`."""


class SegmentationEnvironment:
    """One conversation at a time, over a `MedSegChat-v0` of its own.

    TRL makes one for every rollout of a batch and resets it again and again. Cases, backbone and
    embeddings are shared by all. Tools are methods of the class that `make_environment` makes; what
    they get, wrong arguments included, goes to `MedSegChatEnv.step` as a call in words, so that an
    unreadable one costs a step and is explained to the model.

    A public method would be a tool to TRL: everything else is a property or begins with "_".
    """

    _options: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        self._env = MedSegChatEnv(**self._options)
        self._failure: Exception | None = None

    def reset(self, case: str, **row: Any) -> Content:
        """Begin an episode.

        Args:
            case: Key.
            **row: Other columns of the dataset; not looked at.

        Returns:
            The first user turn, image and text, which TRL adds to the row's prompt.

        Raises:
            CaseError: There is no such case.
        """
        self._failure = None
        observation, _ = self._env.reset(options={"case": case})
        return _content(observation)

    @property
    def outcome(self) -> EpisodeSummary:
        """Summary of the episode as it stands.

        Raises:
            PolicyError: A tool failed for a reason that is not the model's, such as a dead
                segmenter. TRL would have shown it to the model and gone on.
        """
        if self._failure is not None:
            raise PolicyError(
                "a tool of the environment failed, so that this rollout has no reward: "
                f"{type(self._failure).__name__}: {self._failure}"
            ) from self._failure
        return EpisodeSummary.of(self._env.episode)

    @property
    def over(self) -> bool:
        """Return whether the episode is over."""
        return self._env.episode.done

    def _play(self, answer: str) -> str | Content:
        """Take one step; return what the model is shown next."""
        if self._failure is not None:
            raise self._failure
        if not self.over:
            try:
                observation, *_ = self._env.step(answer)
            except Exception as error:
                self._failure = error
                raise
            if not self.over:
                return _content(observation)
        over: str = self._env.view.texts.over
        return over


def _content(observation: Any) -> Content:
    return [
        {"type": "image", "image": Image.fromarray(observation["image"])},
        {"type": "text", "text": observation["text"]},
    ]


def _tool(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a tool with the name, signature and words of `method`, which takes any arguments.

    TRL answers a call whose arguments do not fit by itself, without a step; so the suite does.
    """

    @functools.wraps(method)
    def tool(self: SegmentationEnvironment, *_: Any, **arguments: Any) -> str | Content:
        return self._play(write_call(method.__name__, arguments))

    return tool


def _with_coordinates(tool: Callable[..., Any], coordinates: Coordinates) -> Callable[..., Any]:
    """Describe the tool in these coordinates: TRL reads docstring and annotations."""

    @functools.wraps(tool)
    def described(self: SegmentationEnvironment, *_: Any, **arguments: Any) -> str | Content:
        shown: str | Content = tool(self, **arguments)
        return shown

    described.__doc__ = (tool.__doc__ or "").replace(GRID.span, coordinates.span)
    if coordinates.schema["type"] == "number":
        annotations = tool.__annotations__
        places: dict[str, Any] = {
            name: "list[float]" for name in ("bbox_2d", "point_2d") if name in annotations
        }
        described.__annotations__ = {**annotations, **places}
        signature = inspect.signature(tool)
        described.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[
                one.replace(annotation=places.get(name, one.annotation))
                for name, one in signature.parameters.items()
            ]
        )
    return described


class _Tools:
    """The tools; TRL makes their schemas from signatures and docstrings."""

    @_tool
    def add_bbox(self, bbox_2d: list[int]) -> list:
        """Enclose the structure with a box; replaces an earlier box.

        Args:
            bbox_2d: [x1, y1, x2, y2], 0 to 999 of width and height.

        Returns:
            The image with the mask so far.
        """
        raise NotImplementedError  # `_tool` takes the signature and the words alone

    @_tool
    def add_point(self, point_2d: list[int], point_type: Literal["positive", "negative"]) -> list:
        """Click on what is missing (positive) or on what does not belong (negative).

        Args:
            point_2d: [x, y], 0 to 999 of width and height.
            point_type: What the click says.

        Returns:
            The image with the mask so far.
        """
        raise NotImplementedError

    @_tool
    def undo_action(self) -> list:
        """Take the last prompt back.

        Returns:
            The image with the mask so far.
        """
        raise NotImplementedError

    @_tool
    def clear_action(self) -> list:
        """Start over without a mask.

        Returns:
            The image.
        """
        raise NotImplementedError

    @_tool
    def stop_action(self) -> str:
        """Accept the mask and end.

        Returns:
            That the episode is over.
        """
        raise NotImplementedError


def make_environment(**options: Any) -> type[SegmentationEnvironment]:
    """Make an `environment_factory` for TRL's `GRPOTrainer`.

    Args:
        **options: Those of `MedSegChat-v0`, see `ChatOptions`; `tools` decides which methods there
            are.

    Returns:
        A class to be called without arguments. Give the trainer `episode_return` as reward
        function and `environment_rows` as dataset.

    Raises:
        MedSegError: An option, case source or backbone that cannot be used.
    """
    chat = ChatOptions.from_arguments(options)
    shared = {**options, "cases": load_cases(chat.cases, chat.split)}
    coordinates = chat_coordinates(chat)
    body = {
        name: _with_coordinates(vars(_Tools)[name], coordinates) for name in call_names(chat.tools)
    }
    return type("MedSegChat", (SegmentationEnvironment,), {**body, "_options": shared})
