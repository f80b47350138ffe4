"""Synthetic chest X-ray: lungs, heart and bones that shine through each other.

Only schematic: a frontal projection made of layers that add up, so that ribs cross every border.
The patient's right is on the left of the image.
"""

from __future__ import annotations

import numpy as np

from medseg_gym.cases.phantoms.contours import blob, drawn, filled, place_in, walk
from medseg_gym.cases.phantoms.scene import Drawing, Scene
from medseg_gym.cases.phantoms.textures import (
    COLUMNS,
    ROWS,
    blur,
    enlarge,
    grey_image,
    smooth_noise,
    vary,
)


def _lung(rng: np.random.Generator, side: int, unit: float, middle: np.ndarray) -> np.ndarray:
    """Outline of a lung: narrow apex, concave inner border, dome of the diaphragm below."""
    apex, base = vary(rng, -0.98, 0.06), vary(rng, 0.72, 0.1)
    outer, inner = vary(rng, 0.92, 0.05), vary(rng, 0.15, 0.03)
    dome = vary(rng, 0.2, 0.08)
    knots = np.array([
        (0.36, apex), (0.56, apex + 0.1), (0.74, apex + 0.42), (0.86, -0.2), (outer, 0.3),
        (outer + 0.02, base + 0.16), (0.72, base - 0.35 * dome), (0.5, base - dome),
        (0.26, base - 0.3 * dome), (inner, 0.4), (inner + 0.02, 0.0), (inner + 0.04, -0.45),
        (0.2, apex + 0.22),
    ])  # fmt: skip
    knots += rng.normal(size=knots.shape) * 0.025
    closed = np.concatenate([knots[-2:], knots, knots[:3]])
    at = np.arange(2, len(knots) + 2, 0.125)
    whole = at.astype(int)
    t = (at - whole)[:, None]
    p0, p1, p2, p3 = (closed[whole + shift] for shift in (-1, 0, 1, 2))
    smooth = 0.5 * (  # Catmull-Rom spline
        2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )  # fmt: skip
    outline: np.ndarray = np.clip(smooth * unit * (side, 1.0) + middle, 2, 253)
    return outline


def _ribs(rng: np.random.Generator, unit: float, middle: np.ndarray) -> np.ndarray:
    """Brightness of ribs, clavicles and spine."""
    lines = []
    width = unit * rng.uniform(0.05, 0.08)
    slope, gap = rng.uniform(0.35, 0.7), rng.uniform(0.19, 0.25)
    for count in range(8):
        t = np.linspace(0.0, 1.0, 24)
        top = -1.05 + gap * count
        reach = min(0.55 + 0.09 * count, 0.98)
        x = 0.1 + reach * np.sin(t * 2.0) / 1.0
        y = top + slope * (t**1.8) * (0.6 + 0.08 * count) - 0.12 * np.sin(t * np.pi)
        arc = np.stack([x, y], axis=1)
        lines += [(arc * unit * (sign, 1.0) + middle, width) for sign in (-1, 1)]
    bones = drawn(*lines).astype(np.float32) * np.float32(rng.uniform(0.05, 0.12))
    clavicles = []
    for sign in (-1, 1):
        t = np.linspace(0.0, 1.0, 16)
        rise = -0.86 - 0.2 * t + 0.06 * np.sin(6.3 * t)
        arc = np.stack([0.1 + 0.85 * t, rise], axis=1)
        clavicles.append((arc * unit * (sign, 1.0) + middle, unit * 0.09))
    bones += drawn(*clavicles) * np.float32(rng.uniform(0.08, 0.16))
    spine = np.abs(COLUMNS - np.float32(middle[0])) < 0.11 * unit
    discs = 0.75 + 0.25 * np.sin(ROWS * np.float32(6.3 / (0.17 * unit)))
    skeleton: np.ndarray = bones + spine * discs * np.float32(rng.uniform(0.05, 0.11))
    return skeleton


def _draw(rng: np.random.Generator, hard: bool, without: str) -> Drawing:
    unit = rng.uniform(88, 112)
    middle = np.array([127.5, 128.0]) + rng.uniform(-6, 6, 2)
    trunk = blob(rng, middle + unit * np.array([0.0, 0.75]), unit * 1.3, 1.3, 0.0, 0.03)
    shoulders = blob(rng, middle - unit * np.array([0.0, 0.4]), unit * 1.25, 0.62, 0.0, 0.03)
    neck = blob(rng, middle - unit * np.array([0.0, 1.15]), unit * 0.45, 0.9, np.pi / 2, 0.03)
    torso = filled(trunk, shoulders, neck)
    right = filled(_lung(rng, -1, unit, middle))
    left = filled(_lung(rng, 1, unit, middle))
    tilt = rng.uniform(0.5, 0.9)
    spot = middle + unit * np.array([rng.uniform(0.12, 0.24), rng.uniform(0.24, 0.36)])
    size = unit * rng.uniform(0.36, 0.5)
    heart = filled(blob(rng, spot, size, rng.uniform(0.62, 0.82), tilt, 0.13, taper=-0.2))
    right, left = right & ~heart, left & ~heart
    lungs = right | left
    arch = blob(rng, middle + unit * np.array([0.05, -0.4]), 0.2 * unit, 0.6, 1.3, 0.1)
    centre = np.abs(COLUMNS - np.float32(middle[0])) < 0.2 * unit
    windpipe = walk(rng, middle - unit * np.array([0.0, 1.15]), np.pi / 2, 0.85 * unit, 0.03)
    trachea = drawn((windpipe, unit * rng.uniform(0.11, 0.16)))

    field = torso * np.float32(vary(rng, 0.56, 0.05))
    field += 0.05
    air = np.float32(rng.uniform(0.34, 0.44))
    field -= air * blur(lungs, 1.2) * (1 + 0.12 * smooth_noise(rng, 5))
    markings = np.maximum(smooth_noise(rng, int(rng.integers(20, 34))), 0)
    field += markings * np.float32(rng.uniform(0.03, 0.07)) * lungs
    field += heart * np.float32(rng.uniform(0.10, 0.2)) + filled(arch) * np.float32(0.08)
    field += centre * np.float32(0.05) - trachea * np.float32(rng.uniform(0.13, 0.2))
    field += _ribs(rng, unit, middle) * torso
    masks = {"heart": heart, "trachea": trachea & (ROWS > 2)}
    _add_findings(rng, field, masks, (right, left), unit, hard, without)
    fluid = masks.get("pleural effusion", np.zeros_like(right))
    masks["right lung"], masks["left lung"] = right & ~fluid, left & ~fluid
    masks["lungs"] = lungs & ~fluid
    exposure = enlarge(rng.standard_normal((2, 2))) * np.float32(rng.uniform(0.0, 0.05))
    return Drawing(grey_image(rng, field + exposure, (0.008, 0.04)), masks, (150 / unit,) * 2)


def _add_findings(
    rng: np.random.Generator,
    field: np.ndarray,
    masks: dict[str, np.ndarray],
    lungs: tuple[np.ndarray, np.ndarray],
    unit: float,
    hard: bool,
    without: str,
) -> None:
    """Add diseases and devices to `field` and `masks`."""
    free = lungs[0] | lungs[1]

    def wanted(name: str, share: float) -> bool:
        return name != without and (hard or rng.random() < share)

    if wanted("pleural effusion", 0.35):
        lung = lungs[int(rng.integers(2))]
        rows = np.flatnonzero(lung.any(axis=1))
        columns = np.flatnonzero(lung.any(axis=0))
        level = float(rows[-1]) - float(rows[-1] - rows[0]) * rng.uniform(0.2, 0.4)
        across = (COLUMNS - float(columns.mean())) / max(float(np.ptp(columns)) / 2, 1)
        fluid = lung & (ROWS > level - across**2 * unit * rng.uniform(0.15, 0.4) + 0.1 * unit)
        masks["pleural effusion"] = fluid
        field += fluid * np.float32(rng.uniform(0.48, 0.56))
        free = free & ~fluid
    if wanted("lung nodule", 0.45):
        radius = unit * rng.uniform(0.07, 0.15)
        spot = place_in(rng, free, radius)
        masks["lung nodule"] = filled(blob(rng, spot, radius, 0.8, rng.uniform(0, 3), 0.24)) & free
        field += masks["lung nodule"] * np.float32(rng.uniform(0.16, 0.3))
    if wanted("consolidation", 0.45):
        radius = unit * rng.uniform(0.16, 0.3)
        spot = place_in(rng, free, radius)
        patch = filled(blob(rng, spot, radius, 0.6, rng.uniform(0, 3), 0.3)) & free
        masks["consolidation"] = patch
        strength = rng.uniform(0.07, 0.1) if hard else rng.uniform(0.16, 0.28)
        field += patch * np.float32(strength) * (1 + 0.25 * smooth_noise(rng, 24))
    if wanted("pacemaker", 0.2):
        spot = place_in(rng, lungs[1] & (ROWS < 100), 0.1 * unit)
        box = blob(rng, spot, unit * rng.uniform(0.11, 0.15), 0.75, rng.uniform(0, 3), 0.05)
        masks["pacemaker"] = filled(box)
        field += masks["pacemaker"] * np.float32(0.5)
    if hard:
        start = place_in(rng, free & (ROWS < 110), 4)
        catheter = walk(rng, start, rng.uniform(0.8, 2.3), unit * rng.uniform(0.6, 1.1), 0.08)
        masks["catheter"] = drawn((np.clip(catheter, 2, 253), rng.uniform(1.0, 2.4)))
        field += masks["catheter"] * np.float32(rng.uniform(0.15, 0.3))
        spot = place_in(rng, free, 5)
        masks["granuloma"] = filled(blob(rng, spot, rng.uniform(1.2, 2.8), 0.9, 0.0, 0.15))
        field += masks["granuloma"] * np.float32(rng.uniform(0.25, 0.4))


CHEST = Scene(
    name="chest",
    modality="X-ray",
    view="chest X-ray",
    structures=(
        "lungs", "right lung", "left lung", "heart", "trachea", "pleural effusion",
        "lung nodule", "consolidation", "pacemaker",
    ),
    hard={
        "low_contrast": "consolidation",
        "thin": "catheter",
        "two_part": "lungs",
        "tiny": "granuloma",
    },
    optional=("pleural effusion", "lung nodule", "pacemaker"),
    draw=_draw,
)  # fmt: skip
