"""The volumes of a data set whose cases are slices: what `load_volumes("nifti:PATH")` opens."""

from __future__ import annotations

from collections.abc import Sequence

from medseg_gym.cases.case_source import load_cases
from medseg_gym.cases.files.data import FileData
from medseg_gym.cases.files.defects import Damaged
from medseg_gym.cases.files.records import Record
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.cases.volume_source import VolumeSource
from medseg_gym.errors import CaseError
from medseg_gym.registry import takes_spec
from medseg_gym.specs import Spec


class FileVolumes(VolumeSource):
    """A volume for every volume and target that has a case; read when it is asked for.

    Args:
        data: The indexed data.
        records: Cases of a split; those that are slices of no volume are passed over.
        split: Of the records.
    """

    def __init__(self, data: FileData, records: Sequence[Record], split: str) -> None:
        self.data, self.split, self.name = data, split, data.name
        self.left_out = data.left_out_of_volumes
        self._first: dict[str, Record] = {}
        for record in records:
            place = data.dataset_format.place(record)
            if place is not None:
                self._first.setdefault(place.volume, record)
        self._keys = tuple(self._first)
        self.drawn_split = data.draws_splits

    def group_count(self) -> int:
        """Return how many groups the volumes come from."""
        return len({record.group for record in self._first.values()})

    @property
    def keys(self) -> Sequence[str]:
        """Keys, in the order of their first slices."""
        return self._keys

    @property
    def targets(self) -> tuple[str, ...]:
        """Target texts of all splits, sorted."""
        return self.data.targets

    def __getitem__(self, index: int) -> VolumeCase:
        """Read volume `index`; a negative one counts from the end.

        Raises:
            CaseError: Its files cannot be used, or its slices make no volume.
            IndexError: Outside of the split.
        """
        key = self._keys[index]
        record = self._first[key]
        try:
            pixels = self.data.dataset_format.read_volume(record)
        except Damaged as error:
            raise CaseError(f"{self.data.spec}: {error}") from error
        return VolumeCase(
            key,
            pixels.image,
            pixels.mask,
            record.target,
            record.modality,
            pixels.spacing,
            record.group,
            record.source or self.name,
            synthetic=record.synthetic,
            geometry=pixels.geometry,
        )


@takes_spec
def load(spec: Spec, split: str) -> VolumeSource:
    """Open the volumes of a data set that `load_cases` reads slice by slice.

    Raises:
        CaseError: See `load_cases`; or its cases are images, or a part of the slices.
    """
    volumes = load_cases(str(spec), split).volumes
    if volumes is None:
        raise CaseError(
            f"{spec}: its cases are not all slices of volumes; leave out slices=, or give a folder "
            "of volumes"
        )
    return volumes
