"""Scores of volumes, from the records of their slices or of whole volumes, as they come in."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from medseg_agents.evaluation.case_record import CaseRecord, EpisodeRecord
from medseg_agents.evaluation.failed_cases import FailedCase
from medseg_agents.evaluation.volumes.episode_record import VolumeEpisodeRecord
from medseg_agents.evaluation.volumes.mask_files import MaskFolder
from medseg_agents.evaluation.volumes.measures import measure_volume
from medseg_agents.evaluation.volumes.packed_masks import unpack_mask, unpack_volume
from medseg_agents.evaluation.volumes.records import ScoredVolumes, UnscoredVolume, VolumeRecord
from medseg_agents.evaluation.volumes.selection import Selection, by_volume
from medseg_gym.cases import VolumeCase
from medseg_gym.errors import CaseError, MedSegError

CUT = "--limit left slices of it out"
FAILED = "it failed, or a slice of it"
"""Reasons that a volume has no score."""


class VolumeScorer:
    """Scores every volume, and writes its mask, as soon as all that is to be played of it is.

    A volume that is played slice by slice is complete with the last of its selected slices; none of
    them may have failed, and no limit have left one out. Its truth is whole: slices that were not
    played count as empty masks.

    Args:
        selection: What is played.
        folder: Where masks go, of images too; None writes none.
    """

    def __init__(self, selection: Selection, folder: MaskFolder | None = None) -> None:
        self.selection, self.folder = selection, folder
        self._slices = by_volume(selection.source, selection.keys)
        self._played: dict[str, dict[str, CaseRecord]] = {}
        self._failed: dict[str, dict[str, FailedCase]] = {}
        self._scored: dict[str, VolumeRecord] = {}
        self._without: dict[str, UnscoredVolume] = {}

    def add(self, outcomes: Sequence[EpisodeRecord | FailedCase]) -> None:
        """Take what was played, or played again after it had failed.

        Raises:
            MedSegError: Records without masks, a mask of another size than its volume, or the disk
                refuses a mask.
        """
        for one in outcomes:
            if isinstance(one, FailedCase):
                self._failed.setdefault(self._volume_of(one.case), {})[one.case] = one
            elif isinstance(one, VolumeEpisodeRecord):
                self._failed.get(one.case, {}).pop(one.case, None)
                self._complete(one.case, [one])
            elif isinstance(one, CaseRecord) and one.volume:
                self._failed.get(one.volume, {}).pop(one.case, None)
                played = self._played.setdefault(one.volume, {})
                played[one.case] = one
                if played.keys() == self._slices.get(one.volume):
                    self._complete(one.volume, list(played.values()))
                    played.clear()  # with the masks
            elif self.folder is not None and isinstance(one, CaseRecord):
                self.folder.write_image(one)

    @property
    def failed(self) -> frozenset[str]:
        """Volumes that failed, or of which a slice did."""
        return frozenset(volume for volume, some in self._failed.items() if some)

    def result(self, lost: Collection[str] = ()) -> ScoredVolumes:
        """Return all volumes that were played, in order.

        Args:
            lost: Volumes that have no score because they failed for another policy.
        """
        result = ScoredVolumes()
        for volume in self.selection.volumes:
            scored, failed = self._scored.get(volume), self._failed.get(volume, {})
            some: list[Any] = [*failed.values(), *self._played.get(volume, {}).values()]
            if volume in self._without:
                result.unscored.append(self._without[volume])
            elif scored is not None and volume not in lost:
                result.records.append(scored)
            elif scored is not None or some:
                # Without a score and without a failure it can only have been cut.
                reason = FAILED if failed or volume in lost else CUT
                result.unscored.append(_unscored(volume, scored or some[0], reason))
        return result

    def _volume_of(self, key: str) -> str:
        """Key of the volume that failed, or of which a slice did; an image's own key."""
        if key in self._slices:
            return key
        place = self.selection.source.place_of(key)
        return key if place is None else place.volume

    def _complete(self, volume: str, records: Sequence[EpisodeRecord]) -> None:
        source = self.selection.source
        if volume in self.selection.cut and isinstance(records[0], CaseRecord):
            self._without[volume] = _unscored(volume, records[0], CUT)
            return
        assert source.volumes is not None  # a record is of it
        try:
            case = source.volumes[source.volumes.index_of(volume)]
        except CaseError as error:
            self._without[volume] = _unscored(volume, records[0], str(error))
            return
        whole = records[0]
        if isinstance(whole, VolumeEpisodeRecord):
            mask, record = _whole(case, whole)
        else:
            slices = [record for record in records if isinstance(record, CaseRecord)]
            mask, record = _assembled(case, slices)
        self._scored[volume] = record
        if self.folder is not None:
            self.folder.write_volume(case, mask)


def _unscored(volume: str, one: Any, reason: str) -> UnscoredVolume:
    return UnscoredVolume(volume, one.group, one.modality, one.target, reason)


def _whole(case: VolumeCase, record: VolumeEpisodeRecord) -> tuple[np.ndarray, VolumeRecord]:
    if tuple(record.shape) != case.mask.shape:
        raise MedSegError(
            f"volume {case.key!r} is {case.mask.shape} and was played as {tuple(record.shape)}; "
            "did its file change? Play it again in another folder"
        )
    mask = unpack_volume(record.mask, record.shape)
    notes = [] if record.stopped else [f"all {record.turns} steps were used"]
    if record.unnamed:
        notes.append("more slices than actions can name (?slices=N behind the policy's name)")
    scored = _score(
        case,
        mask,
        [record],
        played=case.depth,
        unplayed=[],
        notes=notes,
        dice_by_step=record.dice,
        prompts_by_step=record.prompts_by_step,
    )
    return mask, scored


def _assembled(case: VolumeCase, records: Sequence[CaseRecord]) -> tuple[np.ndarray, VolumeRecord]:
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
    played = {record.slice_index for record in records}
    unplayed = [index for index in range(case.depth) if index not in played]
    return mask, _score(case, mask, records, played=len(played), unplayed=unplayed)


def _score(
    case: VolumeCase,
    mask: np.ndarray,
    records: Sequence[EpisodeRecord],
    *,
    played: int,
    unplayed: Sequence[int],
    notes: Sequence[str] = (),
    dice_by_step: tuple[float, ...] = (),
    prompts_by_step: tuple[int, ...] = (),
) -> VolumeRecord:
    with_target = sum(bool(case.mask[index].any()) for index in unplayed)
    measures = measure_volume(mask, case)
    return VolumeRecord(
        volume=case.key,
        group=case.group,
        modality=case.modality,
        target=case.target,
        synthetic=case.synthetic,
        slices=case.depth,
        played=played,
        unplayed_empty=len(unplayed) - with_target,
        unplayed_target=with_target,
        truth_voxels=int(np.count_nonzero(case.mask)),
        volume_dice=measures.dice,
        volume_hd95=measures.hd95,
        volume_nsd_1mm=measures.nsd_1mm,
        volume_nsd_2mm=measures.nsd_2mm,
        volume_error_ml=measures.volume_error_ml,
        prompts=sum(record.prompts for record in records),
        turns=sum(record.turns for record in records),
        seconds=sum(record.seconds for record in records),
        notes=tuple(dict.fromkeys(note for record in records for note in record.notes)),
        grid_notes=(*measures.notes, *notes),
        dice_by_step=dice_by_step,
        prompts_by_step=prompts_by_step,
    )
