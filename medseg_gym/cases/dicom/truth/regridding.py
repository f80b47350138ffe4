"""Carry SEG frames over to images on another grid, by nearest neighbour.

A frame is a slab: its pixels, half the distance between slices thick on either side. An image that
is parallel to the frames takes the frames nearest to it, if it lies within their slab; one that is
turned against them takes every slab that it cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from medseg_gym.cases.dicom.facts import Facts
from medseg_gym.cases.dicom.planes import Plane
from medseg_gym.cases.dicom.series import SAME, Series, usual_gap
from medseg_gym.cases.dicom.truth.placed import Placed
from medseg_gym.cases.dicom.truth.segment_slices import Lost, slice_of_frame
from medseg_gym.cases.files import Defect
from medseg_gym.cases.volumes import name_grids, nearest

Masks = Callable[[int, int], np.ndarray]
"""(frame, segment) -> (H, W) bool, in the stored orientation."""


def lies_elsewhere(facts: Facts, scan: dict[str, Any], series: Series) -> bool:
    """Return whether frames that show something lie on another grid than the images.

    Args:
        facts: Facts of the SEG.
        scan: What `scan_segmentation` found.
        series: The images.
    """
    for number, (sources, areas) in enumerate(scan["frames"]):
        if any(area for _, area in areas):
            place = slice_of_frame(sources, number, facts, series)
            if isinstance(place, Lost) and place.grid:
                return True
    return False


def carry(mask: np.ndarray, frame: Plane, thickness: float, onto: Plane, size: Any) -> np.ndarray:
    """Sample the mask of a frame at the pixels of an image.

    Args:
        mask: (H, W) bool.
        frame: Where it lies.
        thickness: Millimetres along its normal that it stands for.
        onto: Where the image lies.
        size: Rows and columns of the image.

    Returns:
        (H, W) bool.
    """
    affine = frame.affine.copy()
    affine[:3, 2] *= thickness
    stored = np.ascontiguousarray(mask.T, np.uint8)[:, :, None]
    sampled = nearest(stored, affine, (size[1], size[0], 1), onto.affine)
    return sampled[:, :, 0].T > 0


def carry_segments(
    name: str, facts: Facts, scan: dict[str, Any], series: Series, masks: Masks
) -> Iterator[Placed | Defect]:
    """Find the pixels that every segment has on the images.

    Args:
        name: Path of the SEG relative to the root.
        facts: Its facts.
        scan: What `scan_segmentation` found.
        series: The images.
        masks: Its pixels.

    Yields:
        A target on a slice, in order; notes on what was done and what was left out; or a Defect
        that says why frames cannot be carried over.
    """
    frames = _Frames(facts, scan, series)
    if problem := frames.problem():
        yield Defect(name, f"cannot be carried over to the grid of the images: {problem}")
        return
    names = {number: text for number, text in scan["segments"]}
    size = (series.facts["rows"], series.facts["columns"])
    reached: set[int] = set()
    placed = []
    for segment in sorted(frames.by_segment):
        if segment not in names:
            cause = f"show segment {segment}, which SegmentSequence does not name"
            yield Defect(name, f"{len(frames.by_segment[segment])} frames: {cause}")
            continue
        for index, frame in enumerate(series.frames):
            assert frame.plane is not None  # problem() asked
            mask, touching = np.zeros(size, bool), []
            near, thickness = frames.near(segment, frame.plane, size)
            for number in near:
                carried = carry(
                    masks(number, segment), frames.planes[number], thickness, frame.plane, size
                )
                if carried.any():
                    mask |= carried
                    touching.append(number)
            if touching:
                reached.update(touching)
                area = int(np.count_nonzero(mask))
                planes = tuple(facts["planes"][number] for number in touching)
                placed.append(
                    Placed(
                        segment,
                        names[segment],
                        index,
                        tuple(touching),
                        area,
                        scan["labelmap"],
                        planes,
                        thickness,
                    )
                )
    if not placed:
        yield Defect(name, f"does not overlap the images anywhere: {frames.grids()}")
        return
    yield Defect(name, f"frames carried over to another grid: {frames.grids()}", note=True)
    lost = len(frames.planes) - len(reached)
    if lost:
        yield Defect.counting(name, "frames that show a segment where no image is", lost)
    beside = sum(
        frames.beside(number, masks(number, segment))
        for segment, numbers in frames.by_segment.items()
        for number in numbers
        if number in reached and segment in names
    )
    if beside:
        yield Defect.counting(name, "pixels of segments beside the images", beside)
    yield from placed


class _Frames:
    """The frames of a SEG that show something.

    Args:
        facts: Facts of the SEG.
        scan: What `scan_segmentation` found.
        series: The images.
    """

    def __init__(self, facts: Facts, scan: dict[str, Any], series: Series) -> None:
        self.facts, self.series = facts, series
        self.by_segment: dict[int, list[int]] = {}
        self.planes: dict[int, Plane] = {}
        self.placeless = 0
        for number, (_, areas) in enumerate(scan["frames"]):
            shown = [segment for segment, area in areas if area]
            plane = facts["planes"][number] if number < len(facts["planes"]) else None
            if not shown:
                continue
            if plane is None:
                self.placeless += 1
            else:
                self.planes[number] = Plane.of(plane)
                for segment in shown:
                    self.by_segment.setdefault(segment, []).append(number)
        everywhere = [Plane.of(plane) for plane in facts["planes"] if plane is not None]
        self.heights = np.array([])
        if everywhere:
            first = everywhere[0]
            # Empty frames count: a slice that is nearest to one of them shows nothing.
            self.heights = first.distance(np.array([plane.position for plane in everywhere]))
            self.first = first
        usual = usual_gap(self.heights) if np.ptp(self.heights) > SAME else np.inf
        self.gap = min(scan["gap"] or series.gap, usual)

    def problem(self) -> str:
        """Return the reason why frames cannot be carried over, or ""."""
        if self.series.view is None:
            return "the images have no position or orientation"
        if self.placeless:
            return f"frames that do not say where they lie: {self.placeless}"
        if any(not self.first.parallel(plane) for plane in self.planes.values()):
            return "its frames are turned against each other"
        planes = [frame.plane for frame in self.series.frames if frame.plane is not None]
        heights = planes[0].distance(np.array([plane.position for plane in planes]))
        if (np.diff(np.sort(heights)) < SAME).any():
            return "several images lie at one place"
        return ""

    def grids(self) -> str:
        """Describe both grids."""
        image = self.series.frames[0].plane
        assert image is not None  # problem() asked
        facts = self.series.facts
        count = len(np.unique(np.round(self.heights, 2)))
        size = (count, self.facts["rows"], self.facts["columns"])
        shown = (len(self.series.frames), facts["rows"], facts["columns"])
        return name_grids(self.first.grid(size, self.gap), image.grid(shown, self.series.gap))

    def beside(self, number: int, mask: np.ndarray) -> int:
        """Count pixels of a mask on a frame that lie over none of the images' rows and columns."""
        frame, image = self.planes[number], self.series.frames[0].plane
        assert image is not None  # problem() asked
        places = image.pixels(frame.points(np.argwhere(mask)))
        size = np.array([self.series.facts["rows"], self.series.facts["columns"]])
        inside = (places >= -0.5) & (places < size - 0.5)
        return len(places) - int(np.count_nonzero(inside.all(axis=1)))

    def near(self, segment: int, image: Plane, size: tuple[int, int]) -> tuple[list[int], float]:
        """Return frames whose pixels an image may take, and their thickness."""
        numbers = self.by_segment[segment]
        if abs(float(image.normal @ self.first.normal)) > 0.99999:
            height = float(self.first.distance(image.position[None])[0])
            apart = np.abs(self.heights - height)
            if apart.min() > self.gap / 2 + SAME:
                return [], self.gap
            # Of two at the same distance the lower one: the one that comes first.
            chosen = self.heights[apart <= apart.min() + SAME / 10].min()
            own = self.first.distance(np.array([self.planes[n].position for n in numbers]))
            near = [n for n, h in zip(numbers, own, strict=True) if abs(h - chosen) <= SAME]
            return near, 4 * self.gap  # the choice is made: the slab must only reach the image
        corners = np.array([(r, c) for r in (0, size[0] - 1) for c in (0, size[1] - 1)])
        places = image.points(corners)
        near = []
        for number in numbers:
            heights = self.planes[number].distance(places)
            if heights.min() <= self.gap / 2 and heights.max() >= -self.gap / 2:
                near.append(number)
        return near, self.gap
