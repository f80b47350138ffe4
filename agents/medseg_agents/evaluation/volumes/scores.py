"""Scores of volumes, from the records of their slices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from medseg_agents.evaluation.case_record import CaseRecord
from medseg_agents.evaluation.failed_cases import FailedCase
from medseg_agents.evaluation.volumes.measures import measure_volume
from medseg_agents.evaluation.volumes.packed_masks import unpack_mask
from medseg_gym.cases import CaseSource, VolumeCase
from medseg_gym.errors import CaseError, MedSegError

CUT = "--limit left slices of it out"
FAILED = "a slice of it failed"
"""Reasons that a volume has no score."""


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
        played: Of them, played.
        unplayed_empty: Of those that were not played, slices without the target. All that were not
            played count as empty masks.
        unplayed_target: Likewise, with the target: under the reader's area floor, say.
        truth_voxels: Of the target.
        volume_dice: 0..1 over all voxels.
        volume_hd95: In mm; None where one of the masks is empty, or there are no distances.
        volume_nsd_1mm: 0..1; None where there are no distances.
        volume_nsd_2mm: Likewise.
        volume_error_ml: Millilitres of the mask less those of the truth; None where unknown.
        turns: Actions on all slices.
        seconds: Of all slices.
        notes: Of all slices; see `CaseRecord`.
        grid_notes: Why something is None; see `measure_volume`.
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
    turns: int
    seconds: float
    notes: tuple[str, ...]
    grid_notes: tuple[str, ...] = ()


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


class PlayedSlices(NamedTuple):
    """Records of one policy with one seed.

    Args:
        records: Of slices that were played.
        failed: Of the others.
    """

    records: Sequence[CaseRecord]
    failed: Sequence[FailedCase] = ()


@dataclass
class ScoredVolumes:
    """Volumes of one policy.

    Args:
        records: Of those with a score.
        unscored: The others.
    """

    records: list[VolumeRecord] = field(default_factory=list)
    unscored: list[UnscoredVolume] = field(default_factory=list)


OnVolume = Callable[[int, VolumeCase, np.ndarray], None]


def score_volumes(
    source: CaseSource,
    keys: Sequence[str],
    runs: Sequence[PlayedSlices],
    cut: Iterable[str] = (),
    on_volume: OnVolume | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[ScoredVolumes]:
    """Put the slices of every volume together and score them.

    A volume is scored where all of `keys` that are its slices have a record and none of `cut` is
    its slice. Its truth is whole: slices that were not played count as empty masks.

    Args:
        source: The cases.
        keys: Those that were to be played.
        runs: What was played of them.
        cut: Keys that were left out although the source has them.
        on_volume: Called with the number of the run, the volume and its (D, H, W) bool mask.
        on_progress: Called with the volumes that are done and all of them.

    Returns:
        One result per run, in order; empty where the cases are no slices.

    Raises:
        MedSegError: Records without masks, or a mask of another size than its slice.
    """
    results = [ScoredVolumes() for _ in runs]
    if source.volumes is None:
        return results
    wanted: dict[str, set[str]] = {}
    for key in keys:
        place = source.place_of(key)
        if place is not None:
            wanted.setdefault(place.volume, set()).add(key)
    shortened = {place.volume for key in cut if (place := source.place_of(key)) is not None}
    of_runs = [_by_volume(source, run) for run in runs]
    for done, (volume, slices) in enumerate(wanted.items(), start=1):
        case: VolumeCase | None = None
        reason = CUT if volume in shortened else ""
        for number, (result, by_volume) in enumerate(zip(results, of_runs, strict=True)):
            records, failed = by_volume.get(volume, ([], []))
            if not records and not failed:
                continue
            why = reason or (FAILED if {one.case for one in records} != slices else "")
            if not why and case is None:
                try:
                    case = source.volumes[source.volumes.index_of(volume)]
                except CaseError as error:
                    why = reason = str(error)
            if why:
                one: CaseRecord | FailedCase = records[0] if records else failed[0]
                result.unscored.append(
                    UnscoredVolume(volume, one.group, one.modality, one.target, why)
                )
                continue
            assert case is not None  # it was read, or there is a reason
            mask = _assembled(case, records)
            result.records.append(_score(case, mask, records))
            if on_volume is not None:
                on_volume(number, case, mask)
        if on_progress is not None:
            on_progress(done, len(wanted))
    return results


def _by_volume(
    source: CaseSource, run: PlayedSlices
) -> dict[str, tuple[list[CaseRecord], list[FailedCase]]]:
    by_volume: dict[str, tuple[list[CaseRecord], list[FailedCase]]] = {}
    for record in run.records:
        if record.volume:
            by_volume.setdefault(record.volume, ([], []))[0].append(record)
    for failed in run.failed:
        place = source.place_of(failed.case)
        if place is not None:
            by_volume.setdefault(place.volume, ([], []))[1].append(failed)
    return by_volume


def _assembled(case: VolumeCase, records: Sequence[CaseRecord]) -> np.ndarray:
    mask = np.zeros(case.mask.shape, bool)
    for record in records:
        if not record.mask:
            raise MedSegError(f"case {record.case!r}: its record holds no mask; play it again")
        plane = unpack_mask(record.mask)
        if not 0 <= record.slice_index < case.depth or plane.shape != mask.shape[1:]:
            raise MedSegError(
                f"case {record.case!r}: slice {record.slice_index} with a mask of {plane.shape} "
                f"does not fit the volume {case.key!r} of {mask.shape}; did its file change? Play "
                "it again in another folder"
            )
        mask[record.slice_index] = plane
    return mask


def _score(case: VolumeCase, mask: np.ndarray, records: Sequence[CaseRecord]) -> VolumeRecord:
    played = {record.slice_index for record in records}
    shows = [bool(plane.any()) for plane in case.mask]
    unplayed = [index for index in range(case.depth) if index not in played]
    with_target = sum(shows[index] for index in unplayed)
    measures = measure_volume(mask, case)
    return VolumeRecord(
        volume=case.key,
        group=case.group,
        modality=case.modality,
        target=case.target,
        synthetic=case.synthetic,
        slices=case.depth,
        played=len(played),
        unplayed_empty=len(unplayed) - with_target,
        unplayed_target=with_target,
        truth_voxels=int(np.count_nonzero(case.mask)),
        volume_dice=measures.dice,
        volume_hd95=measures.hd95,
        volume_nsd_1mm=measures.nsd_1mm,
        volume_nsd_2mm=measures.nsd_2mm,
        volume_error_ml=measures.volume_error_ml,
        turns=sum(record.turns for record in records),
        seconds=sum(record.seconds for record in records),
        notes=tuple(dict.fromkeys(note for record in records for note in record.notes)),
        grid_notes=measures.notes,
    )
