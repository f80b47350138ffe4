"""Records of volumes: with a score, or with the reason that there is none."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class VolumeRecord:
    """Scores of one policy on one volume.

    Args:
        volume: Key.
        group: Patient or volume; intervals go by group.
        modality: Of the volume.
        target: What was to be segmented.
        synthetic: True for synthetic volumes.
        slices: Of the volume.
        played: Of them, played; all where the volume was played as a whole.
        unplayed_empty: Of those that were not played, slices without the target. All that were not
            played count as empty masks.
        unplayed_target: Likewise, with the target: under the reader's area floor, say.
        truth_voxels: Of the target.
        volume_dice: 0..1 over all voxels.
        volume_hd95: In mm; None where one of the masks is empty, or there are no distances.
        volume_nsd_1mm: 0..1; None where there are no distances.
        volume_nsd_2mm: Likewise.
        volume_error_ml: Millilitres of the mask less those of the truth; None where unknown.
        prompts: Boxes and clicks, on all slices together.
        turns: Actions on all slices, or on the volume: what propagates, looks, takes back and stops
            counts as well.
        seconds: Of all slices, or of the volume.
        notes: Of all slices; see `EpisodeRecord`.
        grid_notes: What is to be known of the volume: why something is None (see
            `measure_volume`), or that its steps were used up.
        dice_by_step: 3D Dice before the first action and after each, where the volume was played as
            a whole.
        prompts_by_step: Boxes and clicks by then, likewise.
    """

    volume: str
    group: str
    modality: str
    target: str
    synthetic: bool
    slices: int
    played: int
    unplayed_empty: int
    unplayed_target: int
    truth_voxels: int
    volume_dice: float
    volume_hd95: float | None
    volume_nsd_1mm: float | None
    volume_nsd_2mm: float | None
    volume_error_ml: float | None
    prompts: int
    turns: int
    seconds: float
    notes: tuple[str, ...]
    grid_notes: tuple[str, ...] = ()
    dice_by_step: tuple[float, ...] = ()
    prompts_by_step: tuple[int, ...] = ()

    def dice_after_prompts(self, count: int) -> float:
        """3D Dice when so many prompts were placed and all that followed the last was done.

        Args:
            count: Boxes and clicks; with fewer in all, the final Dice.
        """
        last = max(i for i, n in enumerate(self.prompts_by_step) if n <= count)
        return self.dice_by_step[last]


@dataclass(frozen=True)
class UnscoredVolume:
    """A volume without a score, and why.

    Args:
        volume: Key.
        group: As in `VolumeRecord`.
        modality: Likewise.
        target: Likewise.
        reason: Never empty.
    """

    volume: str
    group: str
    modality: str
    target: str
    reason: str


@dataclass
class ScoredVolumes:
    """Volumes of one policy.

    Args:
        records: Of those with a score.
        unscored: The others.
    """

    records: list[VolumeRecord] = field(default_factory=list)
    unscored: list[UnscoredVolume] = field(default_factory=list)
