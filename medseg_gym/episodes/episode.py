"""One case being segmented: everything that has happened so far.

Nothing else in the suite holds episode state. An `Episode` knows the rules (which prompts are
valid, what undo goes back to, when it is over) and keeps the record; the `EpisodeEngine` makes the
masks, and `rewards.score_episode` replays the rules over stored ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from medseg_gym.backbones.batching.transfer import to_device
from medseg_gym.backbones.protocol import Embedding
from medseg_gym.cases import Case
from medseg_gym.episodes.masks import PackedMask
from medseg_gym.episodes.rules import EpisodeRules, StepFacts
from medseg_gym.errors import PromptError
from medseg_gym.prompts import AddBox, AddPoint, Clear, Prompt

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
        square: The mask at the engine's `mask_side`, in the host's memory; None where nobody asked
            for it.
    """

    mask: torch.Tensor
    pixels: int = 0
    intersection: int = 0
    box: AddBox | None = None
    points: tuple[AddPoint, ...] = ()
    logits: torch.Tensor | None = None
    square: PackedMask | None = None


@dataclass(frozen=True, eq=False)
class Step(StepFacts):
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


@dataclass(eq=False)
class Episode(EpisodeRules[MaskState, Step]):
    """One case, its prompts, logits, masks and scores after every step.

    Args:
        case: What is segmented.
        truth: H x W bool, the case's mask on the backbone's device.
        max_steps: Every action uses one; the episode is over when they are used up.
        embedding: The encoded image; None where masks come from a record.
        initial_logits: Low-resolution logits of the case's initial mask, for backbones that take
            such; None where there is none.
        steps: Actions taken so far.
        rewards: What the engine's reward, or that of a record, gave for each of them.
    """

    case: Case
    truth: torch.Tensor
    max_steps: int
    embedding: Embedding | None = None
    initial_logits: torch.Tensor | None = None
    steps: list[Step] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    _before: list[MaskState] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.truth_pixels = int(self.case.mask.sum())
        self.cleared = self.start = MaskState(torch.zeros_like(self.truth))
        if self.case.initial_mask is not None:
            mask = to_device(self.case.initial_mask.copy(), self.truth.device)
            both = int((self.case.initial_mask & self.case.mask).sum())
            pixels = int(self.case.initial_mask.sum())
            self.start = MaskState(mask, pixels, both, logits=self.initial_logits)
        self.start_dice, self.start_iou = self._scores(self.start)

    # what may happen --------------------------------------------------------------------------
    def judge(self, prompt: Prompt | PromptError | None) -> tuple[Effect, str]:
        """Judge what a prompt would do now: its effect, and the error if it is invalid.

        Args:
            prompt: None or the error itself for an action that could not be read.

        Raises:
            EpisodeError: The episode is over.
        """
        judged = self._judge_any(prompt)
        if judged is not None:
            return judged
        if isinstance(prompt, Clear):
            if self.state.box is None and not self.state.points and not self.state.pixels:
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
        state = self._next_state(effect, state)
        readable = None if isinstance(prompt, PromptError) else prompt
        step = Step(readable, effect, error, state, *self._scores(state))
        self.steps.append(step)
        return step
