"""One case being segmented: everything that has happened so far.

Nothing else in the suite holds episode state. An `Episode` knows the rules (which prompts are
valid, what undo goes back to, when it is over) and keeps the record; the `EpisodeEngine` makes the
masks, and `rewards.score_episode` replays the rules over stored ones.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Literal

import torch

from medseg_gym.backbones.protocol import Embedding
from medseg_gym.cases import Case
from medseg_gym.episodes.metrics import dice_from_counts, iou_from_counts
from medseg_gym.errors import EpisodeError, PromptError
from medseg_gym.prompts import AddBox, AddPoint, Clear, Prompt, Stop, Undo

Effect = Literal["decode", "restore", "clear", "stop", "invalid"]


@dataclass(frozen=True, eq=False)
class MaskState:
    """Prompts in force and the mask that they made; undo goes back to an earlier one.

    Args:
        mask: H x W bool, on the backbone's device.
        pixels: Pixels in the mask.
        intersection: Pixels in mask and truth.
        box: The box in force.
        points: The clicks in force, in order.
        logits: Low-resolution logits of the decode that made the mask; None before any.
    """

    mask: torch.Tensor
    pixels: int = 0
    intersection: int = 0
    box: AddBox | None = None
    points: tuple[AddPoint, ...] = ()
    logits: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """One action and what came of it.

    Args:
        prompt: None if the action could not be read.
        effect: What it did; "invalid" changed nothing.
        error: Why it was invalid, else "".
        state: The state afterwards.
        dice: Dice afterwards; NaN where the truth is not known, as is `iou`.
        iou: IoU afterwards.
    """

    prompt: Prompt | None
    effect: Effect
    error: str
    state: MaskState
    dice: float
    iou: float

    @property
    def valid(self) -> bool:
        """True if the action did what its tool does."""
        return self.effect != "invalid"

    @property
    def tool(self) -> str:
        """Name of the tool, "" if the action could not be read."""
        return "" if self.prompt is None else self.prompt.tool


@dataclass(eq=False)
class Episode:
    """One case, its prompts, logits, masks and scores after every step.

    Args:
        case: What is segmented.
        truth: H x W bool, the case's mask on the backbone's device.
        max_steps: Every action uses one; the episode is over when they are used up.
        embedding: The encoded image; None where masks come from a record.
        steps: Actions taken so far.
        rewards: What the engine's reward, or that of a record, gave for each of them.
    """

    case: Case
    truth: torch.Tensor
    max_steps: int
    embedding: Embedding | None = None
    steps: list[Step] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    _before: list[MaskState] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.truth_pixels = int(self.case.mask.sum())
        self.start = MaskState(torch.zeros_like(self.truth))
        self.start_dice, self.start_iou = self._scores(self.start)

    # what is ----------------------------------------------------------------------------------
    @property
    def state(self) -> MaskState:
        """The state now."""
        return self.steps[-1].state if self.steps else self.start

    @property
    def dice(self) -> float:
        """Dice now."""
        return self.steps[-1].dice if self.steps else self.start_dice

    @property
    def iou(self) -> float:
        """IoU now."""
        return self.steps[-1].iou if self.steps else self.start_iou

    @property
    def previous_dice(self) -> float:
        """Dice before the newest step."""
        return self.steps[-2].dice if len(self.steps) > 1 else self.start_dice

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

    def fork(self) -> Episode:
        """Return a copy that goes on by itself from here.

        Case, truth, embedding, and the states and steps so far are the same objects in both:
        nothing ever writes into them. What is added to one is not in the other.
        """
        forked = copy.copy(self)
        forked.steps, forked.rewards = list(self.steps), list(self.rewards)
        forked._before = list(self._before)
        return forked

    # what may happen --------------------------------------------------------------------------
    def judge(self, prompt: Prompt | PromptError | None) -> tuple[Effect, str]:
        """Judge what a prompt would do now: its effect, and the error if it is invalid.

        Args:
            prompt: None or the error itself for an action that could not be read.

        Raises:
            EpisodeError: The episode is over.
        """
        if self.done:
            raise EpisodeError(f"episode on case {self.case.key!r} is over; reset it first")
        if prompt is None or isinstance(prompt, PromptError):
            return "invalid", str(prompt or "the action could not be read")
        if isinstance(prompt, Stop):
            return "stop", ""
        if isinstance(prompt, Undo):
            return ("restore", "") if self._before else ("invalid", "there is nothing to undo")
        if isinstance(prompt, Clear):
            if self.state.box is None and not self.state.points:
                return "invalid", "there is nothing to clear"
            return "clear", ""
        if isinstance(prompt, AddBox) and prompt.is_empty:
            return "invalid", "the box has no area; its corners must differ in x and in y"
        return "decode", ""

    def with_prompt(self, prompt: AddBox | AddPoint) -> tuple[AddBox | None, tuple[AddPoint, ...]]:
        """Box and clicks in force once `prompt` is added: a new box replaces, clicks accumulate."""
        if isinstance(prompt, AddBox):
            return prompt, self.state.points
        return self.state.box, (*self.state.points, prompt)

    # what happens -----------------------------------------------------------------------------
    def record(
        self,
        prompt: Prompt | PromptError | None,
        effect: Effect,
        error: str = "",
        state: MaskState | None = None,
    ) -> Step:
        """Add a step.

        Args:
            prompt: As judged.
            effect: As judged.
            error: As judged.
            state: The new state of a "decode"; the others follow from the rules.

        Raises:
            EpisodeError: The episode is over, or a decode without its state.
        """
        if self.done:
            raise EpisodeError(f"episode on case {self.case.key!r} is over; reset it first")
        if (state is not None) != (effect == "decode"):
            raise EpisodeError(f"a state belongs to a decode and to nothing else, not {effect!r}")
        now = self.state
        if effect == "restore":
            state = self._before.pop()
        elif effect in ("decode", "clear"):
            self._before.append(now)
            state = state or self.start
        else:
            state = now
        readable = None if isinstance(prompt, PromptError) else prompt
        step = Step(readable, effect, error, state, *self._scores(state))
        self.steps.append(step)
        return step

    def _scores(self, state: MaskState) -> tuple[float, float]:
        """Dice and IoU of a state; NaN where the truth is not known."""
        if not self.case.truth_known:
            return math.nan, math.nan
        counts = (state.intersection, state.pixels, self.truth_pixels)
        return dice_from_counts(*counts), iou_from_counts(*counts)
