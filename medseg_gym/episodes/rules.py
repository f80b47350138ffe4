"""Rules that every episode keeps, on an image or a volume: steps, undo, scores, and its end."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from medseg_gym.episodes.metrics import dice_from_counts, iou_from_counts
from medseg_gym.errors import EpisodeError, PromptError
from medseg_gym.prompts import Stop, Undo

if TYPE_CHECKING:
    from typing_extensions import Self


class State(Protocol):
    """Prompts in force and the masks that they made."""

    @property
    def pixels(self) -> int:
        """Pixels or voxels in the mask."""

    @property
    def intersection(self) -> int:
        """Pixels or voxels in mask and truth."""


class StepFacts:
    """Says what a step was, from its `prompt` and `effect`."""

    prompt: Any
    effect: Any

    @property
    def valid(self) -> bool:
        """True if the action did what its tool does."""
        return bool(self.effect != "invalid")

    @property
    def tool(self) -> str:
        """Name of the tool, "" if the action could not be read."""
        return "" if self.prompt is None else str(self.prompt.tool)


StateT = TypeVar("StateT", bound=State)
StepT = TypeVar("StepT", bound=Any)


class EpisodeRules(Generic[StateT, StepT]):
    """The course of an episode so far, and its consequences.

    A subclass is a dataclass with these fields, and sets `truth_pixels` and the `start_...` ones.
    """

    noun: ClassVar[str] = "case"
    made_by: ClassVar[tuple[str, ...]] = ("decode",)
    """Effects that come with a new state."""

    case: Any
    max_steps: int
    steps: list[StepT]
    rewards: list[float]
    _before: list[StateT]
    truth_pixels: int
    start: StateT
    cleared: StateT
    """With no prompt and no mask; the start, where that has no mask of its own."""
    start_dice: float
    start_iou: float

    # what is ----------------------------------------------------------------------------------
    @property
    def state(self) -> StateT:
        """The state now."""
        state: StateT = self.steps[-1].state if self.steps else self.start
        return state

    @property
    def dice(self) -> float:
        """Dice now; of volumes in 3D."""
        return float(self.steps[-1].dice) if self.steps else self.start_dice

    @property
    def iou(self) -> float:
        """IoU now; of volumes in 3D."""
        return float(self.steps[-1].iou) if self.steps else self.start_iou

    @property
    def previous_dice(self) -> float:
        """Dice before the newest step."""
        return float(self.steps[-2].dice) if len(self.steps) > 1 else self.start_dice

    @property
    def stopped(self) -> bool:
        """True if the agent ended the episode itself."""
        return bool(self.steps) and self.steps[-1].effect == "stop"

    @property
    def done(self) -> bool:
        """True if the agent stopped or the steps are used up."""
        return self.stopped or len(self.steps) >= self.max_steps

    @property
    def steps_left(self) -> int:
        """Actions that may still be taken."""
        return 0 if self.stopped else self.max_steps - len(self.steps)

    def fork(self) -> Self:
        """Return a copy that goes on by itself from here.

        Case, truth, and the states and steps so far are the same objects in both: nothing ever
        writes into them. What is added to one is not in the other.
        """
        forked = copy.copy(self)
        forked.steps, forked.rewards = list(self.steps), list(self.rewards)
        forked._before = list(self._before)
        return forked

    # what may and what does happen --------------------------------------------------------------
    def _judge_any(self, prompt: Any) -> tuple[Any, str] | None:
        """Judge what is the same for all episodes; None for other prompts.

        Raises:
            EpisodeError: The episode is over.
        """
        self._require_going_on()
        if prompt is None or isinstance(prompt, PromptError):
            return "invalid", str(prompt or "the action could not be read")
        if isinstance(prompt, Stop):
            return "stop", ""
        if isinstance(prompt, Undo):
            return ("restore", "") if self._before else ("invalid", "there is nothing to undo")
        return None

    def _next_state(self, effect: str, state: StateT | None) -> StateT:
        """Return the state after an effect, and remember what undo goes back to.

        Raises:
            EpisodeError: The episode is over, or an effect without the state that belongs to it.
        """
        self._require_going_on()
        if (state is not None) != (effect in self.made_by):
            raise EpisodeError(f"a state belongs to a decode and to nothing else, not {effect!r}")
        if effect == "restore":
            return self._before.pop()
        if effect == "clear" or effect in self.made_by:
            self._before.append(self.state)
            return state or self.cleared
        return self.state

    def _require_going_on(self) -> None:
        if self.done:
            raise EpisodeError(f"episode on {self.noun} {self.case.key!r} is over; reset it first")

    def _scores(self, state: StateT) -> tuple[float, float]:
        """Dice and IoU of a state; NaN where the truth is not known."""
        if not self.case.truth_known:
            return math.nan, math.nan
        counts = (state.intersection, state.pixels, self.truth_pixels)
        return dice_from_counts(*counts), iou_from_counts(*counts)
