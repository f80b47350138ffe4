"""One volume being segmented: everything that has happened so far.

As an `Episode` does for an image, a `VolumeEpisode` knows the rules and keeps the record; the
`VolumeEngine` makes the masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
import torch

from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.episodes.episode import Effect
from medseg_gym.episodes.rules import EpisodeRules, StepFacts
from medseg_gym.errors import PromptError
from medseg_gym.prompts import AddBox, AddPoint, Clear, Stop, Undo
from medseg_gym.prompts.volumes import Look, Propagate, SlicePrompt, VolumePrompt

VolumeEffect = Effect | Literal["propagate", "look"]


@dataclass(frozen=True, eq=False)
class SliceState:
    """Mask of a slice, and what made it.

    Args:
        bits: (H, ceil(W / 8)) uint8, the mask as `numpy.packbits` packs it: an eighth of its size.
        pixels: Pixels in the mask.
        intersection: Pixels in mask and truth.
        extent: Smallest box round the mask along pixel edges; None where it is empty.
        grey: Mean and standard deviation of the slice's grey values (0..255) within the mask; 0, 0
            where it is empty.
        logits: Low-resolution logits of the decode that made the mask, on the backbone's device;
            None where the mask comes from a record.
        box: The box in force on this slice.
        points: The clicks in force on this slice, in order.
        carried: Box that propagation made of the neighbour's mask; it stays in force under clicks
            until the slice gets a box of its own. None where no propagation came by.
        mask_input: Logits that the decode of prompts of the slice's own started from, if any: with
            them a backbone's memory makes the same mask again.
        corrects: True if the first of its own prompts met a mask that propagation had brought.
    """

    bits: np.ndarray
    pixels: int
    intersection: int
    extent: AddBox | None
    grey: tuple[float, float]
    logits: torch.Tensor | None
    box: AddBox | None = None
    points: tuple[AddPoint, ...] = ()
    carried: AddBox | None = None
    mask_input: torch.Tensor | None = None
    corrects: bool = False

    @property
    def prompted(self) -> bool:
        """True if the slice has prompts of its own: propagation leaves its mask as it is."""
        return self.box is not None or bool(self.points)

    @property
    def shows_target(self) -> bool:
        """True if its own prompts say that the target is here, and it has a mask."""
        positive = any(point.positive for point in self.points)
        return self.pixels > 0 and (self.box is not None or positive)

    @classmethod
    def stored(
        cls,
        mask: np.ndarray,
        truth: np.ndarray,
        box: AddBox | None = None,
        points: tuple[AddPoint, ...] = (),
    ) -> SliceState:
        """Return the state of a slice of which only mask and prompts are left.

        Args:
            mask: (H, W) bool.
            truth: (H, W) bool.
            box: See the class, as for `points`.
            points: See the class.
        """
        counts = int(np.count_nonzero(mask)), int(np.count_nonzero(mask & truth))
        return cls(np.packbits(mask, axis=1), *counts, None, (0.0, 0.0), None, box, points)

    def mask(self, width: int) -> np.ndarray:
        """Return the mask, (H, `width`) bool."""
        return np.unpackbits(self.bits, axis=1, count=width).view(bool)


def sources(slices: Mapping[int, SliceState]) -> list[int]:
    """Slices that propagation starts from, ascending.

    They show the target by prompts of their own. Prompts that correct what propagation had brought
    leave it to the slice that it came from; they count where there is no other.
    """
    shown = sorted(index for index, one in slices.items() if one.shows_target)
    return [index for index in shown if not slices[index].corrects] or shown


@dataclass(frozen=True, eq=False)
class VolumeState:
    """Masks of all slices; undo goes back to an earlier state.

    Args:
        slices: State by index, of slices that have prompts or a mask; the others are empty.
        pixels: Voxels in the mask, the sum over slices.
        intersection: Voxels in mask and truth.
    """

    slices: Mapping[int, SliceState] = field(default_factory=lambda: MappingProxyType({}))
    pixels: int = 0
    intersection: int = 0

    @property
    def prompted(self) -> list[int]:
        """Slices with prompts of their own, ascending."""
        return sorted(index for index, one in self.slices.items() if one.prompted)

    def with_slices(
        self, changed: Mapping[int, SliceState], without_carried: bool = False
    ) -> VolumeState:
        """Return the state with some slices replaced; counts follow without a look at the others.

        Args:
            changed: New states by index.
            without_carried: Drop slices without prompts of their own first.
        """
        slices = dict(self.slices)
        pixels, intersection = self.pixels, self.intersection
        gone = [i for i, one in slices.items() if without_carried and not one.prompted]
        for index in {*gone, *(changed.keys() & slices.keys())}:
            old = slices.pop(index)
            pixels, intersection = pixels - old.pixels, intersection - old.intersection
        for index, new in changed.items():
            slices[index] = new
            pixels, intersection = pixels + new.pixels, intersection + new.intersection
        return VolumeState(MappingProxyType(slices), pixels, intersection)


@dataclass(frozen=True, eq=False)
class VolumeStep(StepFacts):
    """One action and what came of it.

    Args:
        prompt: None if the action could not be read.
        effect: What it did; "invalid" changed nothing, "look" only the view.
        error: Why it was invalid, else "".
        state: The state afterwards.
        view: Slice in view afterwards.
        dice: 3D Dice afterwards.
        iou: 3D IoU afterwards.
    """

    prompt: VolumePrompt | None
    effect: VolumeEffect
    error: str
    state: VolumeState
    view: int
    dice: float
    iou: float


@dataclass(eq=False)
class VolumeEpisode(EpisodeRules[VolumeState, VolumeStep]):
    """One volume, its prompts, masks and scores after every step.

    Args:
        case: What is segmented.
        max_steps: Every action uses one; the episode is over when they are used up.
        steps: Actions taken so far.
        rewards: What the engine's reward gave for each of them.
    """

    noun: ClassVar[str] = "volume"
    made_by: ClassVar[tuple[str, ...]] = ("decode", "propagate")

    case: VolumeCase
    max_steps: int
    steps: list[VolumeStep] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    _before: list[VolumeState] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.truth_pixels = int(np.count_nonzero(self.case.mask))
        self.start = VolumeState()
        self.cleared = self.start
        self.start_dice, self.start_iou = self._scores(self.start)

    # what is ----------------------------------------------------------------------------------
    @property
    def view(self) -> int:
        """Slice in view: the middle one, until a prompt or a look goes elsewhere."""
        return self.steps[-1].view if self.steps else self.case.depth // 2

    def slice_mask(self, index: int) -> np.ndarray:
        """Return the mask of a slice, (H, W) bool."""
        one = self.state.slices.get(index)
        if one is None:
            return np.zeros(self.case.mask.shape[1:], bool)
        return one.mask(self.case.width)

    def mask(self) -> np.ndarray:
        """Return the mask of the volume, (D, H, W) bool."""
        mask = np.zeros(self.case.mask.shape, bool)
        for index, one in self.state.slices.items():
            mask[index] = one.mask(self.case.width)
        return mask

    # what may happen --------------------------------------------------------------------------
    def judge(self, prompt: VolumePrompt | PromptError | None) -> tuple[VolumeEffect, str]:
        """Judge what a prompt would do now: its effect, and the error if it is invalid.

        Args:
            prompt: None or the error itself for an action that could not be read.

        Raises:
            EpisodeError: The episode is over.
        """
        judged = self._judge_any(prompt)
        if judged is not None:
            return judged
        assert prompt is not None and not isinstance(prompt, (PromptError, Stop, Undo))
        if isinstance(prompt, Clear):
            return ("clear", "") if self.state.slices else ("invalid", "there is nothing to clear")
        if isinstance(prompt, Propagate):
            if sources(self.state.slices):
                return "propagate", ""
            return "invalid", "no slice with a box or a positive click has a mask to propagate"
        if prompt.slice >= self.case.depth:
            return "invalid", f"the volume has {self.case.depth} slices, there is no {prompt.slice}"
        if isinstance(prompt, Look):
            return "look", ""
        if isinstance(prompt.prompt, AddBox) and prompt.prompt.is_empty:
            return "invalid", "the box has no area; its corners must differ in x and in y"
        return "decode", ""

    # what happens -----------------------------------------------------------------------------
    def record(
        self,
        prompt: VolumePrompt | PromptError | None,
        effect: VolumeEffect,
        error: str = "",
        state: VolumeState | None = None,
    ) -> VolumeStep:
        """Add a step.

        Args:
            prompt: As judged.
            effect: As judged.
            error: As judged.
            state: The new state of a "decode" or "propagate"; the others follow from the rules.

        Raises:
            EpisodeError: The episode is over, or a decode without its state.
        """
        view, state = self.view, self._next_state(effect, state)
        if effect in ("decode", "look") and isinstance(prompt, (SlicePrompt, Look)):
            view = prompt.slice
        readable = None if isinstance(prompt, PromptError) else prompt
        step = VolumeStep(readable, effect, error, state, view, *self._scores(state))
        self.steps.append(step)
        return step
