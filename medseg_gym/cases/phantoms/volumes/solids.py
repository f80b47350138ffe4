"""Solids: outlines that change smoothly from slice to slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medseg_gym.cases.phantoms.contours import turn

_ANGLE = np.linspace(0.0, 2.0 * np.pi, 80, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLE), np.sin(_ANGLE)], axis=1)
_ORDERS = np.arange(2, 7)
_BASIS = np.concatenate([np.cos(np.outer(_ORDERS, _ANGLE)), np.sin(np.outer(_ORDERS, _ANGLE))])
_KNOTS = 5


@dataclass(frozen=True, eq=False)
class Solid:
    """A body whose cross-section at height z is an irregular outline.

    Args:
        name: Structure.
        middle: Height of its middle, as a fraction of the volume's height.
        half: Half of its own height, likewise; a tube's is larger than the volume's.
        centre: (2,) pixel position x, y at the middle.
        drift: (2,) pixels by which the centre has moved at the upper end, and against at the lower.
        radius: Half length of the largest cross-section, in pixels.
        aspect: Half width divided by half length.
        angle: Direction of the main axis at the middle, in radians.
        twist: Turn of the main axis at the upper end, in radians.
        ripple: (5, 10) Fourier coefficients of the outline at five heights.
    """

    name: str
    middle: float
    half: float
    centre: np.ndarray
    drift: np.ndarray
    radius: float
    aspect: float
    angle: float
    twist: float
    ripple: np.ndarray

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        name: str,
        middle: float,
        half: float,
        centre: np.ndarray,
        radius: float,
        aspect: float,
        angle: float = 0.0,
        rough: float = 0.12,
        drift: float = 0.15,
    ) -> Solid:
        """Draw what is not given.

        Args:
            rng: Source of the draws.
            name: See the class, as for the arguments that are not listed here.
            middle: See the class.
            half: See the class.
            centre: See the class.
            radius: See the class.
            aspect: See the class.
            angle: See the class.
            rough: Size of the outline's ripple.
            drift: Most of the drift, as a share of the radius.
        """
        weight = 0.8 * rough * (2 / np.concatenate([_ORDERS, _ORDERS])) ** 1.2
        return cls(
            name,
            middle,
            half,
            np.asarray(centre, float),
            rng.uniform(-drift, drift, 2) * radius,
            radius,
            aspect * rng.uniform(0.88, 1.12),
            angle + rng.normal() * 0.15,
            rng.uniform(-0.35, 0.35),
            rng.standard_normal((_KNOTS, len(weight))) * weight,
        )

    def outline(self, z: float) -> np.ndarray | None:
        """Return the cross-section at a height, (80, 2) pixels; None beyond the solid's ends."""
        s = (z - self.middle) / self.half
        if abs(s) >= 1:
            return None
        radius = self.radius * float(np.sqrt(1 - s * s))
        if radius * min(self.aspect, 1.0) < 1.0:
            return None
        at = (s + 1) / 2 * (_KNOTS - 1)
        low = min(int(at), _KNOTS - 2)
        ripple = (1 - (at - low)) * self.ripple[low] + (at - low) * self.ripple[low + 1]
        points = _CIRCLE * np.clip(1 + ripple @ _BASIS, 0.4, 1.6)[:, None] * radius
        points[:, 1] *= self.aspect
        moved: np.ndarray = turn(points, self.angle + s * self.twist)
        outline: np.ndarray = moved + self.centre + s * self.drift
        return outline
