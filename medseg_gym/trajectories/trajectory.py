"""One recorded episode in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from medseg_gym.prompts import Prompt
from medseg_gym.prompts.volumes import VolumePrompt
from medseg_gym.trajectories.store.mask_codec import unpack_mask

if TYPE_CHECKING:
    from medseg_gym.episodes import EpisodeSummary


class EpisodeKey(NamedTuple):
    """Key of an episode: the case, the seed, and the number of the try."""

    case: str
    seed: int
    rollout: int


@dataclass(frozen=True)
class EpisodeFacts:
    """Facts of a whole episode.

    Args:
        key: Its name.
        cases: Spec for `load_cases`; None where the cases were made in memory.
        split: Of the cases.
        source: Name of the case source.
        group: Patient, volume or image.
        target: What to segment, in words.
        modality: Of the image.
        synthetic: True for synthetic images.
        height: Rows of image and masks.
        width: Columns of image and masks.
        image_hash: `Case.content_hash`, by which a changed image is noticed.
        truth: The truth mask, packed (see `mask_codec`); empty where it is not known.
        policy: Who acted.
        sees_truth: Whether it was shown the truth; None if that is not known.
        backbone: Who segmented.
        checkpoint: Name of the weight file, None if none was needed or known.
        checkpoint_hash: BLAKE2b of its bytes.
        options: Of the environment: max_steps, bins, tools, reward, prompt_memory, ...
        depth: Slices of a volume; None for an image.
        initial_mask: The mask that the episode began with, packed; None where it began with none.
    """

    key: EpisodeKey
    cases: str | None
    split: str
    source: str
    group: str
    target: str
    modality: str
    synthetic: bool
    height: int
    width: int
    image_hash: str
    truth: bytes
    policy: str
    sees_truth: bool | None
    backbone: str
    checkpoint: str | None
    checkpoint_hash: str | None
    options: Mapping[str, Any]
    depth: int | None = None
    initial_mask: bytes | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of truth and masks: (H, W), or (D, H, W) of a volume."""
        plane = self.height, self.width
        return plane if self.depth is None else (self.depth, *plane)

    @property
    def truth_known(self) -> bool:
        """False for images that nobody has outlined: Dice, IoU and reward are NaN."""
        return bool(self.truth)


@dataclass(frozen=True)
class RecordedStep:
    """One action and what came of it.

    Args:
        prompt: None if the action could not be read.
        valid: False if it changed nothing.
        error: Why, else "".
        reward: As the environment gave it.
        terms: What the reward is made of.
        dice: Afterwards.
        iou: Afterwards.
        mask: Afterwards, packed (see `mask_codec`).
        stopped: The agent ended the episode.
        terminated: The episode is over.
        truncated: A time limit cut it off.
    """

    prompt: Prompt | VolumePrompt | None
    valid: bool
    error: str
    reward: float
    terms: Mapping[str, float]
    dice: float
    iou: float
    mask: bytes
    stopped: bool
    terminated: bool
    truncated: bool

    @property
    def tool(self) -> str:
        """Name of the tool, "" if the action could not be read."""
        return "" if self.prompt is None else self.prompt.tool

    @property
    def ended(self) -> bool:
        """True for the last step of a finished episode."""
        return self.terminated or self.truncated


@dataclass(frozen=True)
class Trajectory:
    """A recorded episode.

    Args:
        id: Unique among all recordings.
        facts: What holds for the whole of it.
        steps: At least one.
        accepted: The annotator's verdict; None where none was asked for.
    """

    id: str
    facts: EpisodeFacts
    steps: tuple[RecordedStep, ...]
    accepted: bool | None = None

    @property
    def key(self) -> EpisodeKey:
        """Case, seed and rollout."""
        return self.facts.key

    @property
    def finished(self) -> bool:
        """False if the recording broke off."""
        return self.steps[-1].ended

    @property
    def dice(self) -> float:
        """Dice at the end."""
        return self.steps[-1].dice

    @property
    def iou(self) -> float:
        """IoU at the end."""
        return self.steps[-1].iou

    @property
    def summary(self) -> EpisodeSummary:
        """Numbers of the episode."""
        from medseg_gym.episodes import EpisodeSummary  # imports torch, which a store does not need
        from medseg_gym.episodes.metrics import dice_from_counts

        start = float("nan")
        if self.facts.truth_known:
            begun, truth = self.initial_mask, self.truth
            both, pixels = (
                (0, 0) if begun is None else (int((begun & truth).sum()), int(begun.sum()))
            )
            start = dice_from_counts(both, pixels, int(truth.sum()))
        return EpisodeSummary.from_curves(
            self.key.case,
            [start, *(step.dice for step in self.steps)],
            iou=self.iou,
            rewards=self.rewards,
            unchanged=sum(not step.valid for step in self.steps),
            stopped=self.steps[-1].stopped,
            done=self.steps[-1].terminated,
        )

    @property
    def rewards(self) -> list[float]:
        """One per step."""
        return [step.reward for step in self.steps]

    @property
    def prompts(self) -> list[Prompt | VolumePrompt | None]:
        """One per step."""
        return [step.prompt for step in self.steps]

    @property
    def truth(self) -> np.ndarray:
        """(H, W) or (D, H, W) bool; all False where it is not known."""
        if not self.facts.truth_known:
            return np.zeros(self.facts.shape, bool)
        return unpack_mask(self.facts.truth, *self.facts.shape)

    @property
    def initial_mask(self) -> np.ndarray | None:
        """(H, W) bool; None where the episode began with none."""
        packed = self.facts.initial_mask
        return None if packed is None else unpack_mask(packed, *self.facts.shape)

    @property
    def masks(self) -> list[np.ndarray]:
        """(H, W) or (D, H, W) bool after every step."""
        return [unpack_mask(step.mask, *self.facts.shape) for step in self.steps]
