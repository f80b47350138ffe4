"""CaseRecord: the numbers of one played image or slice, as run files keep them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from medseg_agents.evaluation.volumes.packed_masks import pack_mask
from medseg_gym.annotators.box import box_iou, tight_box
from medseg_gym.envs.vector import CoreVectorEnv
from medseg_gym.episodes import Episode, EpisodeSummary, metrics
from medseg_gym.errors import MedSegError
from medseg_gym.policy import Played, Policy, caveats
from medseg_gym.prompts import AddBox, encode_tool_call

PROMPT_TOOLS = ("box", "positive_point", "negative_point")
"""Actions that point at something; the others are bookkeeping, or carry masks."""


@dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """Record of one policy in one episode, on an image or a volume.

    Args:
        case: Key.
        group: Patient, volume or image.
        modality: Of the image.
        target: What was to be segmented.
        synthetic: True for synthetic images.
        dice: Before the first step and after each, so one more than `tools`; of volumes in 3D.
        iou: Likewise.
        tools: Used, in order; "" for an unreadable action.
        invalid: Actions that changed nothing, those in `cut_off` aside.
        stopped: Whether the policy stopped by itself.
        episode_return: Sum of rewards.
        seconds: Share of the wall time.
        notes: What a table must say beside it (see `medseg_gym.policy.caveats`).
        batch: Number of the batch it was played in.
        batch_size: Cases in that batch.
        calls: What was asked for in each step, as a tool call on the grid of 1000 whatever the
            coordinates of the view; "" for an unreadable action.
        answers: What a model said in each step, as it said it; empty for policies without words.
        cut_off: Steps lost to an answer that ran into its limit before it held a call.
        mask: The final mask, see `pack_mask` and `pack_volume`; "" where it was not kept.
    """

    measured: ClassVar[tuple[str, ...]] = ("episode_return", "seconds")
    """Fields that must be finite numbers, beside the scores."""

    undefined: ClassVar[tuple[str, ...]] = ()
    """Of them, those that may be None."""

    case: str
    group: str
    modality: str
    target: str
    synthetic: bool
    dice: tuple[float, ...]
    iou: tuple[float, ...]
    tools: tuple[str, ...]
    invalid: int
    stopped: bool
    episode_return: float
    seconds: float
    notes: tuple[str, ...]
    batch: int
    batch_size: int
    calls: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    cut_off: int = 0
    mask: str = ""

    def __post_init__(self) -> None:
        """Refuse what would make every mean of a table NaN.

        Raises:
            MedSegError: A score or measurement that is not a finite number.
        """
        measured: dict[str, Sequence[Any]] = {"dice": self.dice, "iou": self.iou}
        for name in self.measured:
            value = getattr(self, name)
            if value is not None or name not in self.undefined:
                measured[name] = (value,)
        for name, numbers in measured.items():
            if not all(isinstance(x, (int, float)) and math.isfinite(x) for x in numbers):
                raise MedSegError(
                    f"case {self.case!r}: {name} must be finite, got {getattr(self, name)}"
                )

    @property
    def turns(self) -> int:
        """Actions taken."""
        return len(self.tools)

    @property
    def prompts(self) -> int:
        """Boxes and clicks among the actions, those that changed nothing included."""
        return sum(tool in PROMPT_TOOLS for tool in self.tools)

    @property
    def summary(self) -> EpisodeSummary:
        """Numbers of the episode."""
        return EpisodeSummary(
            case=self.case,
            dice=self.dice[-1],
            iou=self.iou[-1],
            start_dice=self.dice[0],
            first_dice=self.dice_after(1),
            episode_return=self.episode_return,
            turns=self.turns,
            invalid=self.invalid,
            cut_off=self.cut_off,
            stopped=self.stopped,
            done=True,
            stop_regret=metrics.stop_regret(self.dice),
        )

    def dice_after(self, step: int) -> float:
        """Dice after `step` actions; a finished episode keeps its last one."""
        return self.dice[min(step, len(self.dice) - 1)]


@dataclass(frozen=True, kw_only=True)
class CaseRecord(EpisodeRecord):
    """Record of one policy on one case, an image or a slice.

    Args:
        area: Share of the image that the target covers.
        hd95: Of the final mask, in `unit`; None where one of the masks is empty, so that there is
            no distance.
        nsd: Of the final mask at a tolerance of `metrics.NSD_TOLERANCE` in `unit`.
        unit: "mm", or "px" for a case without spacing.
        boundary_iou: Of the final mask.
        first_box_iou: IoU of the first box drawn with the tight box round the target; None where
            no box was drawn or there is no target.
        volume: Key of the volume that the case is a slice of; "" for an image of its own.
        slice_index: Which slice of it, from 0; -1 for an image of its own.
    """

    measured = ("area", "nsd", "boundary_iou", "hd95", *EpisodeRecord.measured)
    undefined = ("hd95",)

    area: float
    hd95: float | None
    nsd: float
    unit: str
    boundary_iou: float
    first_box_iou: float | None = None
    volume: str = ""
    slice_index: int = -1


def of_images(records: Iterable[EpisodeRecord]) -> list[CaseRecord]:
    """Return the records of images and slices, without those of whole volumes."""
    return [record for record in records if isinstance(record, CaseRecord)]


def facts_of(
    played: Played, policy: Policy, envs: CoreVectorEnv, batch_size: int
) -> dict[str, Any]:
    """Return the fields of `EpisodeRecord` for a finished episode, but for `calls` and `mask`.

    Args:
        played: The episode.
        policy: Who played.
        envs: Where.
        batch_size: Cases in its batch.
    """
    episode, case, summary = played.episode, played.episode.case, played.summary
    return {
        "case": case.key,
        "group": case.group,
        "modality": case.modality,
        "target": case.target,
        "synthetic": case.synthetic,
        "dice": (episode.start_dice, *(step.dice for step in episode.steps)),
        "iou": (episode.start_iou, *(step.iou for step in episode.steps)),
        "tools": tuple(step.tool for step in episode.steps),
        "invalid": summary.invalid,
        "stopped": summary.stopped,
        "episode_return": summary.episode_return,
        "seconds": played.seconds,
        "notes": tuple(caveats(policy, envs.backbone, [episode])),
        "batch": played.batch,
        "batch_size": batch_size,
        "answers": played.answers,
        "cut_off": summary.cut_off,
    }


def record_of(
    played: Played, policy: Policy, envs: CoreVectorEnv, batch_size: int, keep_mask: bool = False
) -> CaseRecord:
    """Return the record of a finished episode.

    Args:
        played: The episode.
        policy: Who played.
        envs: Where.
        batch_size: Cases in its batch.
        keep_mask: Keep the final mask.
    """
    episode, case = played.episode, played.episode.case
    mask = episode.state.mask.cpu().numpy()
    place = envs.source.place_of(case.key)
    surface = metrics.surface_scores(mask, case.mask, case.spacing)
    return CaseRecord(
        **facts_of(played, policy, envs, batch_size),
        area=case.area_fraction,
        hd95=surface.hd95 if math.isfinite(surface.hd95) else None,
        nsd=surface.nsd,
        unit=surface.unit,
        boundary_iou=metrics.boundary_iou(mask, case.mask),
        first_box_iou=_first_box_iou(episode),
        calls=tuple(encode_tool_call(s.prompt) if s.prompt else "" for s in episode.steps),
        volume=place.volume if place else "",
        slice_index=place.index if place else -1,
        mask=pack_mask(mask) if keep_mask else "",
    )


def _first_box_iou(episode: Episode) -> float | None:
    drawn = next((s.prompt for s in episode.steps if isinstance(s.prompt, AddBox)), None)
    target = tight_box(episode.case.mask)
    return None if drawn is None or target is None else box_iou(drawn, target)
