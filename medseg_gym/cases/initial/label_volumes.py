"""Masks of slices from label volumes: "initial_mask=volume:predictions/{volume}.nii.gz"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg_gym.cases.case import Case
from medseg_gym.cases.files.defects import Damaged
from medseg_gym.cases.initial.mask_files import ABSENT, check_missing
from medseg_gym.cases.nifti.labels import inline_labels, read_names
from medseg_gym.cases.volumes.geometry import VolumeGeometry
from medseg_gym.cases.volumes.resampling import TOLERANCE
from medseg_gym.cases.volumes.volume import Volume, volume_suffix
from medseg_gym.cases.volumes.whole_numbers import whole_numbers
from medseg_gym.errors import CaseError

FIELD = "{volume}"
"""Stands for the name of the scan: its file without ending and without nnU-Net's channel number,
or its folder."""

_CHANNEL = re.compile(r"_\d{4}$")


@dataclass(frozen=True)
class LabelVolumes:
    """Gives each slice its place in a label volume on the grid of its scan.

    Args:
        pattern: Path of the file (NIfTI, NRRD or MetaImage) with `FIELD` in it.
        values: Label values by target; empty takes all that are not 0.
        missing: "refuse", or "empty" where a scan without a file begins with nothing.
    """

    pattern: str
    values: Mapping[str, tuple[int, ...]]
    missing: str = "refuse"

    def __call__(self, case: Case) -> np.ndarray | None:
        """Refuse a case that is no slice.

        Raises:
            CaseError: Always.
        """
        raise CaseError(
            f"initial mask of case {case.key!r}: it is no slice of a scan in a file; volume: is "
            "for those, file:PATTERN for images"
        )

    def of_slice(self, case: Case, geometry: VolumeGeometry, index: int) -> np.ndarray | None:
        """Return (H, W) bool of a slice; None where there is no file and none is needed.

        Args:
            case: The slice.
            geometry: Grid of its scan.
            index: Which slice of it, from 0.

        Raises:
            Damaged: The file is not there, cannot be used, or has another grid than the scan.
            CaseError: The case's target has no value.
        """
        path = Path(self.pattern.replace(FIELD, _name(geometry))).expanduser()
        place = f"initial mask of case {case.key!r}"
        if not path.is_file():
            if self.missing == "empty":
                return None
            raise Damaged(str(path), f"is not there; {ABSENT}", place)
        labels = Volume(path, geometry.view.axis)
        if labels.header.channels > 1:
            raise Damaged(str(path), f"has {labels.header.channels} channels, not one", place)
        corners = labels.view.corners(labels.header.affine)
        apart = np.abs(corners - geometry.view.corners(geometry.affine)).max()
        if labels.view.shape != geometry.view.shape or apart > TOLERANCE * min(geometry.spacing):
            raise Damaged(
                str(path),
                f"has another grid than its scan {geometry.path}: {labels.view.shape} slices, rows "
                f"and columns, not {geometry.view.shape}, or corners up to {apart:.3g} mm away; "
                "resample it to the scan first",
                place,
            )
        stored = whole_numbers(labels.plane(index), labels.name, f"slice {index}")
        if not self.values:
            mask: np.ndarray = stored != 0
            return mask
        if case.target not in self.values:
            raise CaseError(
                f"{place}: labels= gives no value for {case.target!r}, only for "
                f"{', '.join(map(repr, self.values))}"
            )
        return np.isin(stored, self.values[case.target])


def load(argument: str, labels: str = "", missing: str = "refuse") -> LabelVolumes:
    """Open "initial_mask=volume:PATTERN".

    Args:
        argument: See `LabelVolumes`.
        labels: Pairs of a value and a target, "1:liver,2:spleen"; "" takes all that is not 0.
        missing: See `LabelVolumes`.

    Raises:
        CaseError: A pattern that is the same for all scans or names no volume file, pairs that
            cannot be read, or another choice of `missing`.
    """
    if FIELD not in argument or not volume_suffix(argument):
        raise CaseError(
            f"initial mask volume:{argument}: write a path with {FIELD} in it that ends as NIfTI, "
            "NRRD or MetaImage do, such as predictions/{volume}.nii.gz"
        )
    check_missing(missing)
    try:
        values = read_names(inline_labels(labels)) if labels else {}
    except CaseError as error:
        raise CaseError(
            f"initial mask volume: labels={labels!r}: write VALUE:TARGET,VALUE:TARGET"
        ) from error
    return LabelVolumes(argument, values, missing)


def _name(geometry: VolumeGeometry) -> str:
    path = geometry.path
    if path is None:
        raise CaseError("initial mask volume: these volumes are made, not read from files")
    name = path.name
    return _CHANNEL.sub("", name[: len(name) - len(volume_suffix(name))])
