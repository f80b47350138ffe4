"""Bodies of the page's requests."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from medseg_gym.play.games import Verdict
from medseg_gym.prompts import AddBox, AddPoint, Clear, Prompt, Stop, Undo
from medseg_gym.prompts.volumes import Propagate, SlicePrompt, VolumePrompt
from medseg_gym.serving.errors import ServiceError

Fraction = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(max_length=500)]
Index = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PlayerRequest(_Strict):
    """The player of a game, and whether it is an exam."""

    player: Text = ""
    exam: bool = False


class GameRequest(PlayerRequest):
    """A case or volume, by number or key, and the player."""

    place: Text
    index: int | None = None
    key: Text | None = None


class StepRequest(_Strict):
    """An action; coordinates are fractions of width and height, on a slice of a volume."""

    tool: Literal[
        "box", "positive_point", "negative_point", "propagate", "undo", "clear", "stop"
    ]  # fmt: skip
    slice: Index | None = None
    at: Annotated[list[Fraction], Field(max_length=4)] = []
    expected: int
    accepted: bool | None = None
    least_dice: Fraction = 0.0

    @property
    def verdict(self) -> Verdict:
        """The person's words about the game, if it ends here."""
        return Verdict(self.accepted, self.least_dice)

    def prompt(self, on_volume: bool) -> Prompt | VolumePrompt:
        """Return the prompt of this action.

        Args:
            on_volume: Whether the game is on a volume.

        Raises:
            ServiceError: Too few or too many coordinates, or a slice where there is none to name.
        """
        wanted = {"box": 4, "positive_point": 2, "negative_point": 2}.get(self.tool, 0)
        needs_slice = on_volume and wanted > 0
        if len(self.at) != wanted or needs_slice != (self.slice is not None):
            with_slice = ("a slice and " if needs_slice else "no slice and ") if on_volume else ""
            raise ServiceError(
                f"{self.tool} takes {with_slice}{wanted} coordinates, got {len(self.at)}"
            )
        if not wanted:
            return _BARE[self.tool]
        marked = (
            AddBox(*self.at)
            if self.tool == "box"
            else AddPoint(self.at[0], self.at[1], self.tool == "positive_point")
        )
        return marked if self.slice is None else SlicePrompt(self.slice, marked)


_BARE: dict[str, Undo | Clear | Stop | Propagate] = {
    "propagate": Propagate(),
    "undo": Undo(),
    "clear": Clear(),
    "stop": Stop(),
}


class LookRequest(_Strict):
    """The slice in view."""

    slice: Index


class WatchRequest(_Strict):
    """A policy, by name, and the case that it shall play."""

    policy: Text
    place: Text
    key: Text


class ScanRequest(_Strict):
    """Reading of an uploaded scan."""

    target: Text
    modality: Text = ""
    window: Text = ""
    axis: Literal["auto", "axial", "coronal", "sagittal"] = "auto"
    series: Text = ""
    label: Annotated[int, Field(ge=1, le=65535)] | None = None
