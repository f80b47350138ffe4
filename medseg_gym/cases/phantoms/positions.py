"""Random positions: a drawing turned, scaled, mirrored and moved, with decoys of the same look.

In the scenes as they are drawn an organ's usual place tells much of where it is. After this it
tells little: what is wanted must be found in the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from medseg_gym.cases.phantoms.contours import SIZE, filled, turn
from medseg_gym.cases.phantoms.scene import Drawing

_SCALES = (0.55, 1.1)
_SHIFT = 0.28
"""Furthest that the middle of the drawing moves along each axis, as a share of the image."""

_DECOYS = (1, 3)
_DECOY_RADII = (6.0, 20.0)  # pixels
_BLUR = 3.0  # standard deviation, in pixels, of what is not noise
_REACH = 12  # furthest that a blur reaches: four standard deviations of it
_SURROUNDING = 0.25
"""Structures that cover more of the image than this (a body, a brain) may hold a decoy."""

_TRIES = 20  # of a place for a decoy; where none is free there is none


@dataclass(frozen=True)
class Placement:
    """The place of a drawing in its image.

    Args:
        angle: Radians, clockwise in the image.
        scale: Of lengths.
        shift: Of the middle, (x, y) in pixels.
        mirrored: Whether left and right change sides before it is turned; names that say "left" or
            "right" then change too, as they go by the side that the viewer sees.
    """

    angle: float
    scale: float
    shift: tuple[float, float]
    mirrored: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Placement:
        """Draw a place."""
        low, high = np.log(_SCALES)
        x, y = rng.uniform(-_SHIFT, _SHIFT, 2) * SIZE
        return cls(
            angle=float(rng.uniform(0, 2 * np.pi)),
            scale=float(np.exp(rng.uniform(low, high))),
            shift=(float(x), float(y)),
            mirrored=bool(rng.random() < 0.5),
        )

    def apply(self, drawing: Drawing) -> Drawing:
        """Return the drawing at this place; what it does not cover is black."""
        rows, columns = self._came_from()
        channels = np.moveaxis(drawing.image, 2, 0)
        if all(np.array_equal(channels[0], channel) for channel in channels[1:]):
            channels = channels[:1]  # grey: moved once for all three
        moved = [
            map_coordinates(channel, (rows, columns), order=1, prefilter=False)
            for channel in channels
        ]
        image = np.stack(moved if len(moved) > 1 else moved * 3, axis=2)
        near = np.rint(rows).astype(int), np.rint(columns).astype(int)
        inside = np.logical_and.reduce([(axis >= 0) & (axis < SIZE) for axis in near])
        row, column = (np.clip(axis, 0, SIZE - 1) for axis in near)
        place = row * SIZE + column
        masks = {
            self._renamed(name): mask.ravel()[place] & inside
            for name, mask in drawing.masks.items()
        }
        spacing = drawing.spacing
        if spacing is not None:  # the same on both axes, so that turning keeps it
            spacing = (spacing[0] / self.scale, spacing[1] / self.scale)
        return Drawing(image, masks, spacing)

    def _came_from(self) -> tuple[np.ndarray, np.ndarray]:
        """Return for every pixel the row and column of the drawing that it shows."""
        middle = (SIZE - 1) / 2
        y, x = np.mgrid[:SIZE, :SIZE] - middle
        x, y = (x - self.shift[0]) / self.scale, (y - self.shift[1]) / self.scale
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        across, down = cosine * x + sine * y, cosine * y - sine * x
        return down + middle, (-across if self.mirrored else across) + middle

    def _renamed(self, name: str) -> str:
        if not self.mirrored:
            return name
        words = {"left": "right", "right": "left"}
        return " ".join(words.get(word, word) for word in name.split(" "))


def add_decoys(rng: np.random.Generator, drawing: Drawing) -> Drawing:
    """Return the drawing with patches that have a structure's colour and are none.

    They have straight edges, which nothing in the scenes has, so that shape tells them from what
    they look like; they lie beside everything that has a name, within a structure that surrounds
    the others where there is one.
    """
    areas = {name: np.count_nonzero(mask) for name, mask in drawing.masks.items()}
    small = [n for n, area in areas.items() if 45 <= area <= _SURROUNDING * SIZE**2]
    if not small:
        return drawing
    around = [drawing.masks[n] for n, area in areas.items() if area > _SURROUNDING * SIZE**2]
    home = np.logical_or.reduce(around) if around else np.ones((SIZE, SIZE), bool)
    taken = np.logical_or.reduce([drawing.masks[name] for name in small])
    image = drawing.image.astype(np.float64)
    for _ in range(int(rng.integers(_DECOYS[0], _DECOYS[1] + 1))):
        look = drawing.image[drawing.masks[small[int(rng.integers(len(small)))]]].mean(axis=0)
        mask = _free_polygon(rng, home & ~taken)
        if mask is None:
            continue
        taken |= mask
        _paint(image, drawing.image, mask, look)
    return Drawing(image.round().clip(0, 255).astype(np.uint8), drawing.masks, drawing.spacing)


def _paint(image: np.ndarray, drawn: np.ndarray, mask: np.ndarray, look: np.ndarray) -> None:
    """Paint a decoy into an image; the noise of the drawing stays on top of it.

    Args:
        image: (256, 256, 3) float64, changed in place.
        drawn: The image before any decoy.
        mask: (256, 256) bool; only what is near it is computed.
        look: (3,) its colour.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    first = [max(0, int(axis[0]) - _REACH) for axis in (rows, columns)]
    last = [int(axis[-1]) + 1 + _REACH for axis in (rows, columns)]
    near = np.s_[first[0] : last[0], first[1] : last[1]]
    blurred = [max(0, f - _REACH) for f in first]
    wide = np.s_[blurred[0] : last[0] + _REACH, blurred[1] : last[1] + _REACH]
    around = drawn[wide].astype(np.float32)
    noise = around - gaussian_filter(around, (_BLUR, _BLUR, 0))
    inner = [f - b for f, b in zip(first, blurred, strict=True)]
    there = image[near]
    noise = noise[inner[0] :, inner[1] :][: there.shape[0], : there.shape[1]]
    soft = gaussian_filter(mask[near].astype(np.float32), 0.7)[:, :, None]
    there *= 1 - soft
    there += (look + noise) * soft


def _free_polygon(rng: np.random.Generator, free: np.ndarray) -> np.ndarray | None:
    """Return a polygon of straight edges where there is room for one."""
    places = np.argwhere(free)
    if not len(places):
        return None
    for _ in range(_TRIES):
        row, column = places[int(rng.integers(len(places)))]
        corners = int(rng.integers(3, 5))
        angles = 2 * np.pi * (np.arange(corners) + rng.uniform(-0.2, 0.2, corners)) / corners
        rays = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        outline = rays * rng.uniform(*_DECOY_RADII) * rng.uniform(0.7, 1.3, (corners, 1))
        mask = filled(turn(outline, rng.uniform(0, np.pi)) + np.array([column, row]))
        if mask.any() and not (mask & ~free).any():
            return mask
    return None
