"""The tools that TRL is given: methods whose signatures and docstrings it makes schemas from."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal

from medseg_gym.envs.views.chat_kinds import IMAGE_CHAT, VOLUME_CHAT
from medseg_gym.prompts import GRID, Coordinates, write_call


def _tool(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a tool with the name, signature and words of `method`, which takes any arguments.

    TRL answers a call whose arguments do not fit by itself, without a step; so the suite does.
    """

    @functools.wraps(method)
    def tool(self: Any, *_: Any, **arguments: Any) -> str | list:
        answer: str | list = self._play(write_call(method.__name__, arguments))
        return answer

    return tool


def with_coordinates(tool: Callable[..., Any], coordinates: Coordinates) -> Callable[..., Any]:
    """Describe the tool in these coordinates: TRL reads docstring and annotations."""

    @functools.wraps(tool)
    def described(self: Any, *_: Any, **arguments: Any) -> str | list:
        shown: str | list = tool(self, **arguments)
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


class ImageTools:
    """The tools of `MedSegChat-v0`."""

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


class VolumeTools(ImageTools):
    """The tools of `MedSegVolumeChat-v0`."""

    @_tool
    def add_bbox(self, slice: int, bbox_2d: list[int]) -> list:
        """Enclose the structure on a slice with a box; replaces an earlier box there.

        Args:
            slice: Index of the slice, from 0.
            bbox_2d: [x1, y1, x2, y2], 0 to 999 of width and height.

        Returns:
            That slice and the overview with the mask so far.
        """
        raise NotImplementedError

    @_tool
    def add_point(
        self, slice: int, point_2d: list[int], point_type: Literal["positive", "negative"]
    ) -> list:
        """Click on what is missing on a slice (positive) or on what does not belong (negative).

        Args:
            slice: Index of the slice, from 0.
            point_2d: [x, y], 0 to 999 of width and height.
            point_type: What the click says.

        Returns:
            That slice and the overview with the mask so far.
        """
        raise NotImplementedError

    @_tool
    def propagate_action(self) -> list:
        """Carry the masks of slices with prompts through the others.

        Returns:
            The slice in view and the overview with the mask so far.
        """
        raise NotImplementedError

    @_tool
    def look_action(self, slice: int) -> list:
        """Show a slice.

        Args:
            slice: Index of the slice, from 0.

        Returns:
            That slice and the overview with the mask so far.
        """
        raise NotImplementedError


TOOLS_OF = {IMAGE_CHAT.env_id: ImageTools, VOLUME_CHAT.env_id: VolumeTools}
"""Class of the tools by environment."""
