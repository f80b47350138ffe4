"""A volume case: a scan, the true mask of one target in it, and their origin."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from medseg_gym.cases.case import Case, ReadOnlyCase, hash_pixels
from medseg_gym.errors import CaseError

if TYPE_CHECKING:
    from medseg_gym.cases.volumes.geometry import VolumeGeometry


@dataclass(frozen=True, eq=False)
class VolumeCase(ReadOnlyCase):
    """One volume with one binary truth mask.

    Args:
        key: Stable identifier, unique within its source.
        image: (D, H, W) or (D, H, W, 3) uint8: slices, rows and columns, windowed to 0..255; made
            read-only.
        mask: (D, H, W) bool, True is the target; may be all False.
        target: What to segment, in words.
        modality: As in `Case`.
        spacing: Millimetres between slices, rows and columns, or None where unknown.
        group: Patient or volume that the case comes from; splits and intervals go by group.
        source: Name of the case source.
        synthetic: True for made-up volumes.
        truth_known: False where nobody has outlined the target; as in `Case`.
        geometry: Grid of the file, for writing masks back; None where there is no file.

    Raises:
        CaseError: An array has the wrong type, shape or dtype, or a field is not usable.

    Example:
        >>> import numpy as np
        >>> from medseg_gym.cases import VolumeCase
        >>> image, mask = np.zeros((5, 48, 64), np.uint8), np.zeros((5, 48, 64), bool)
        >>> mask[1:4, 10:22, 20:36] = True
        >>> case = VolumeCase("scan-1", image, mask, "liver", spacing=(5.0, 0.8, 0.8))
        >>> case.depth, round(case.volume_ml, 4), case.slice_case(2).area_fraction
        (5, 1.8432, 0.0625)
    """

    key: str
    image: np.ndarray
    mask: np.ndarray
    target: str
    modality: str = ""
    spacing: tuple[float, float, float] | None = None
    group: str = ""
    source: str = ""
    synthetic: bool = field(default=False, kw_only=True)
    truth_known: bool = field(default=True, kw_only=True)
    geometry: VolumeGeometry | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not self.key:
            raise CaseError(f"case key must be a non-empty string, got {self.key!r}")
        image, mask = self.image, self.mask
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            got = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
            raise CaseError(
                f"case {self.key!r}: image must be a uint8 array, got {got}; window the "
                "intensities to 0..255 first (medseg_gym.cases.window_to_rgb)"
            )
        if (
            image.ndim not in (3, 4)
            or 0 in image.shape
            or (image.ndim == 4 and image.shape[3] != 3)
        ):
            raise CaseError(
                f"case {self.key!r}: image must be (D, H, W) or (D, H, W, 3), got {image.shape}"
            )
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            got = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
            raise CaseError(f"case {self.key!r}: mask must be a bool array, got {got}")
        if mask.shape != image.shape[:3]:
            raise CaseError(
                f"case {self.key!r}: mask is {mask.shape} but the image is {image.shape[:3]} "
                "(slices, rows, columns); they must have the same size"
            )
        if not self.truth_known and mask.any():
            raise CaseError(f"case {self.key!r}: a case without a known truth has an empty mask")
        if self.spacing is not None:
            object.__setattr__(self, "spacing", self._checked_spacing(self.spacing))
        self._make_read_only()

    def _checked_spacing(self, spacing: tuple[float, ...]) -> tuple[float, float, float]:
        try:
            depth, row, column = (float(s) for s in spacing)
        except (TypeError, ValueError):
            depth = row = column = math.nan
        if not all(0 < s < math.inf for s in (depth, row, column)):
            raise CaseError(
                f"case {self.key!r}: spacing must be three positive millimetres (slice, row, "
                f"column), finite ones, or None, got {spacing}"
            )
        return depth, row, column

    @property
    def depth(self) -> int:
        """Slices."""
        return int(self.image.shape[0])

    @property
    def height(self) -> int:
        """Rows of a slice."""
        return int(self.image.shape[1])

    @property
    def width(self) -> int:
        """Columns of a slice."""
        return int(self.image.shape[2])

    @cached_property
    def content_hash(self) -> str:
        """Hash of the voxels alone: cases that share a scan share its embeddings."""
        return hash_pixels(self.image)

    @cached_property
    def volume_ml(self) -> float | None:
        """Millilitres of the target; None where the spacing is unknown."""
        if self.voxel_ml is None:
            return None
        return float(np.count_nonzero(self.mask)) * self.voxel_ml

    @property
    def voxel_ml(self) -> float | None:
        """Millilitres of a voxel; None where the spacing is unknown."""
        if self.spacing is None:
            return None
        if self.geometry is not None:
            return self.geometry.voxel_ml  # a tilted stack has less than the product of spacings
        return math.prod(self.spacing) / 1000

    def rgb(self, index: int) -> np.ndarray:
        """Return slice `index` as (H, W, 3) uint8."""
        plane = self.image[index]
        return plane if plane.ndim == 3 else np.repeat(plane[:, :, None], 3, axis=2)

    def slice_case(self, index: int) -> Case:
        """Return a slice as a case of its own, with the volume's group."""
        return Case(
            f"{self.key}/slice-{index}",
            self.rgb(index),
            self.mask[index],
            self.target,
            self.modality,
            self.spacing[1:] if self.spacing else None,
            self.group,
            self.source,
            synthetic=self.synthetic,
            truth_known=self.truth_known,
        )
