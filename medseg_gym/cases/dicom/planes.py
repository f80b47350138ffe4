"""Planes of frames in the patient: position, orientation, spacing and view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from medseg_gym.cases.files import Damaged
from medseg_gym.cases.volumes import Grid, View, view_of
from medseg_gym.errors import CaseError

PlaneFacts = list[float] | None
"""Position (3), orientation (6) and spacing (2), all in mm, or None where unknown."""

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_AXES = ("sagittal", "coronal", "axial")  # by the world coordinate that the normal runs along


@dataclass(frozen=True, eq=False)
class Plane:
    """A frame in patient coordinates (left, back, up; DICOM PS3.3 C.7.6.2.1.1).

    Args:
        position: (3,) float, centre of the first pixel in mm.
        along: (3,) float, unit direction in which the column index grows.
        down: (3,) float, unit direction in which the row index grows.
        spacing: Millimetres between rows and between columns.
    """

    position: np.ndarray
    along: np.ndarray
    down: np.ndarray
    spacing: tuple[float, float]

    @classmethod
    def of(cls, facts: Sequence[float]) -> Plane:
        """Restore a plane that `planes_of` kept."""
        numbers = np.array(facts, float)
        return cls(numbers[:3], numbers[3:6], numbers[6:9], (float(facts[9]), float(facts[10])))

    def as_facts(self) -> list[float]:
        """Return what `of` reads."""
        vectors = (self.position, self.along, self.down, self.spacing)
        return [float(number) for vector in vectors for number in vector]

    @cached_property
    def normal(self) -> np.ndarray:
        """(3,) float, unit normal, along x down."""
        normal = np.cross(self.along, self.down)
        unit: np.ndarray = normal / np.linalg.norm(normal)
        return unit

    @cached_property
    def affine(self) -> np.ndarray:
        """(4, 4) float: (column, row, slice) indices to millimetres right, front, up."""
        return self.affine_along(self.normal)

    def affine_along(self, step: np.ndarray) -> np.ndarray:
        """Return `affine` for slices that follow each other by a step.

        Args:
            step: (3,) float, from a slice to the next, mm left, back, up.
        """
        affine = np.eye(4)
        affine[:3, 0] = self.along * self.spacing[1]
        affine[:3, 1] = self.down * self.spacing[0]
        affine[:3, 2] = step
        affine[:3, 3] = self.position
        return _LPS_TO_RAS @ affine

    def view(self, rows: int, columns: int) -> View:
        """View of the frame, along the axis nearest to its normal.

        Raises:
            CaseError: Directions that span no plane.
        """
        from nibabel.orientations import io_orientation

        if not np.isfinite(self.affine).all():
            raise CaseError("position, orientation or spacing is not finite")
        world = io_orientation(self.affine)[2, 0]
        axis = "axial" if np.isnan(world) else _AXES[int(world)]
        return view_of((columns, rows, 1), self.affine, axis)

    def grid(self, size: tuple[int, int, int], gap: float = 1.0) -> Grid:
        """Return the grid of a frame of this size (slices, rows, columns), for error messages."""
        directions = np.stack([self.normal, self.down, self.along])
        return Grid(size, (gap, *self.spacing), self.position, directions)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Return row and column (fractions of pixels, whole numbers at centres) of points.

        Args:
            points: (N, 3) float, in mm.

        Returns:
            (N, 2) float.
        """
        offset = points - self.position
        rows, columns = offset @ self.down / self.spacing[0], offset @ self.along / self.spacing[1]
        return np.stack([rows, columns], axis=1)

    def points(self, pixels: np.ndarray) -> np.ndarray:
        """Return positions of (N, 2) rows and columns, (N, 3) float in mm; reverses `pixels`."""
        rows, columns = pixels[:, :1] * self.spacing[0], pixels[:, 1:] * self.spacing[1]
        points: np.ndarray = self.position + rows * self.down + columns * self.along
        return points

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Return the signed distance of (N, 3) points along the normal, in mm."""
        distances: np.ndarray = (points - self.position) @ self.normal
        return distances

    def parallel(self, other: Plane) -> bool:
        """Return whether both are turned alike, within a tenth of a degree or so."""
        return bool(self.along @ other.along > 0.99999 and self.down @ other.down > 0.99999)

    def same_grid(self, other: Plane) -> bool:
        """Return whether the pixels of both lie on each other, within a tenth of a pixel."""
        if not self.parallel(other) or not np.allclose(self.spacing, other.spacing, rtol=0.005):
            return False
        return bool(np.abs(self.pixels(other.position[None])).max() < 0.1)


def planes_of(header: Any, frames: int, name: str) -> list[PlaneFacts]:
    """Return the planes of all frames of a header, as JSON.

    Args:
        header: A pydicom dataset, or a `PlainHeader`.
        frames: Number of frames.
        name: Path of the file relative to the root, for errors.

    Returns:
        One entry per frame; None where position, orientation or spacing is missing.

    Raises:
        Damaged: Numbers that are there but are no position, directions or spacing.
    """
    shared = _first(header, "SharedFunctionalGroupsSequence")
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or ()
    planes: list[PlaneFacts] = []
    for number in range(frames):
        own = per_frame[number] if number < len(per_frame) else None
        places = [header] if own is None and shared is None else [own, shared, header]
        position = _value(places, "PlanePositionSequence", "ImagePositionPatient", 3, name)
        orientation = _value(places, "PlaneOrientationSequence", "ImageOrientationPatient", 6, name)
        spacing = _spacing(places, name)
        if own is None and frames > 1:
            position = None  # the position of the first frame is not that of the others
        if orientation:
            _require_directions(orientation, name)
        if position and orientation and spacing:
            planes.append([*position, *orientation, *spacing])
        else:
            planes.append(None)
    return planes


def spacing_of(header: Any, name: str) -> tuple[float, float] | None:
    """Return PixelSpacing (row, column) in mm of a frame without a plane, if the header has it.

    Raises:
        Damaged: It is there but is no spacing.
    """
    spacing = _spacing([header], name)
    return (spacing[0], spacing[1]) if spacing else None


def _spacing(places: list[Any], name: str) -> list[float] | None:
    spacing = _value(places, "PixelMeasuresSequence", "PixelSpacing", 2, name)
    if spacing and min(spacing) <= 0:
        raise Damaged(name, f"PixelSpacing {spacing[0]:g} {spacing[1]:g} is no spacing")
    return spacing


def _require_directions(orientation: list[float], name: str) -> None:
    along, down = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.linalg.norm(along), np.linalg.norm(down)
    if max(abs(length - 1) for length in lengths) > 0.01 or abs(along @ down) > 0.01:
        text = " ".join(f"{number:g}" for number in orientation)
        raise Damaged(name, f"ImageOrientationPatient {text} is no two directions at right angles")


def frame_item(header: Any, number: int, sequence: str) -> Any:
    """Return the functional group of a frame that `sequence` names; without one, the header."""
    shared = _first(header, "SharedFunctionalGroupsSequence")
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or ()
    own = per_frame[number] if number < len(per_frame) else None
    for place in (own, shared):
        if place is not None and (item := _first(place, sequence)) is not None:
            return item
    return header


def _first(dataset: Any, keyword: str) -> Any:
    sequence = dataset.get(keyword)
    return sequence[0] if sequence else None


def _value(
    places: list[Any], sequence: str, keyword: str, count: int, name: str
) -> list[float] | None:
    for place in places:
        if place is None:
            continue
        item = _first(place, sequence) if sequence and sequence in place else place
        value = None if item is None else item.get(keyword)
        if value is not None and len(value) == count:
            numbers = [float(v) for v in value]
            if not np.isfinite(numbers).all():
                raise Damaged(name, f"{keyword} is not finite")
            return numbers
    return None
