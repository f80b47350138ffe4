"""Synthetic breast ultrasound: tissue layers, a lesion, and the speckle of coherent imaging.

Only schematic. The mean echo of every tissue is multiplied by a Rayleigh amplitude and then
compressed logarithmically, as scanners do; cysts are followed by enhancement, lesions and
calcifications by shadow. The scan is a rectangle (linear probe) or a fan (curved probe).
"""

from __future__ import annotations

import numpy as np

from medseg_gym.cases.phantoms.contours import SIZE, blob, drawn, filled, place_in, walk
from medseg_gym.cases.phantoms.scene import Drawing, Scene
from medseg_gym.cases.phantoms.textures import (
    COLUMNS,
    ROWS,
    as_rgb,
    blur,
    enlarge,
    smooth_noise,
    speckle,
)


class _Beam:
    """Depth (pixels from the probe) and line number (0..255) of every pixel."""

    def __init__(self, rng: np.random.Generator) -> None:
        if rng.random() < 0.5:
            self.depth, self.line = ROWS, COLUMNS.astype(np.intp)
            self.inside = np.ones((SIZE, SIZE), bool)
            return
        apex = rng.uniform(40, 120)  # above the image
        x, y = COLUMNS - np.float32(127.5), ROWS + np.float32(apex)
        angle = np.arctan2(x, y)
        opening = min(rng.uniform(0.5, 0.75), np.arctan2(127.0, apex + 60.0))
        self.depth = np.sqrt(x * x + y * y) - np.float32(apex + 4)
        deepest = rng.uniform(236, 250)
        self.inside = (np.abs(angle) < opening) & (self.depth > 0) & (self.depth < deepest)
        line = (angle + opening) / (2 * opening) * (SIZE - 1)
        self.line = np.clip(line, 0, SIZE - 1).astype(np.intp)

    def behind(self, mask: np.ndarray) -> np.ndarray:
        """Return what the sound reaches only through `mask`, softened, 0..1."""
        deepest = np.full(SIZE, np.inf, np.float32)
        rows = np.flatnonzero(mask)
        if rows.size:
            lines, depths = self.line.ravel()[rows], self.depth.ravel()[rows]
            reached = np.full(SIZE, -np.inf, np.float32)
            np.maximum.at(reached, lines, depths)
            deepest = np.where(np.isfinite(reached), reached, np.inf)
        return blur(self.depth > deepest[self.line], 2.0)


def _layers(rng: np.random.Generator, beam: _Beam) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Mean echo of skin, fat, gland, muscle and chest wall, and their masks."""
    waves = enlarge(rng.standard_normal((1, 6)))[0] * 6
    ripple = enlarge(rng.standard_normal((1, 7)))[0] * 9
    thick = rng.uniform((3, 32, 55, 30), (7, 62, 95, 55))
    below = np.cumsum(thick)
    wavy = beam.depth + waves[beam.line]
    skin = beam.depth < np.float32(below[0])
    fat = (wavy < np.float32(below[1])) & ~skin
    gland = (beam.depth + ripple[beam.line] < np.float32(below[2])) & ~fat & ~skin
    muscle = ((wavy + beam.depth) / 2 < np.float32(below[3])) & ~(gland | fat | skin)
    echo = np.full((SIZE, SIZE), rng.uniform(0.03, 0.06), np.float32)
    echo[muscle], echo[gland], echo[fat], echo[skin] = (
        rng.uniform(0.12, 0.2), rng.uniform(0.3, 0.6), rng.uniform(0.08, 0.15), 0.8,
    )  # fmt: skip
    strands = np.abs(smooth_noise(rng, int(rng.integers(7, 14)), rows=int(rng.integers(22, 36))))
    echo += np.float32(0.45) * (strands < 0.12) * (fat | muscle)
    ducts = np.abs(smooth_noise(rng, 10, rows=18))
    echo *= 1 - np.float32(rng.uniform(0.2, 0.6)) * (ducts < 0.15) * gland
    echo *= np.exp(np.float32(0.18) * smooth_noise(rng, 14))
    fascia = np.abs(wavy - np.float32(below[1])) < 1.4
    fascia |= np.abs((wavy + beam.depth) / 2 - np.float32(below[3])) < 1.4
    echo[fascia & ~skin] = 0.8
    shown = {"subcutaneous fat": fat, "glandular tissue": gland, "pectoral muscle": muscle}
    return echo, {name: mask & beam.inside for name, mask in shown.items()}


def _draw(rng: np.random.Generator, hard: bool, without: str) -> Drawing:
    beam = _Beam(rng)
    echo, masks = _layers(rng, beam)
    gain = np.ones((SIZE, SIZE), np.float32)
    gland = masks["glandular tissue"]
    home = (gland | masks["subcutaneous fat"]) & beam.inside
    taken = np.zeros((SIZE, SIZE), bool)

    def put(name: str, outline: np.ndarray, value: float) -> np.ndarray:
        masks[name] = filled(outline) & beam.inside & ~taken
        echo[masks[name]] = value
        np.logical_or(taken, masks[name], out=taken)
        return masks[name]

    def spot_for(radius: float) -> np.ndarray:
        return place_in(rng, home & ~taken & (beam.depth > radius + 14), radius + 4)

    if hard or rng.random() < 0.85:
        radius = rng.uniform(16, 42)
        rough = rng.uniform(0.1, 0.26)
        outline = blob(
            rng, spot_for(radius), radius, rng.uniform(0.5, 0.9), rng.normal() * 0.4, rough
        )
        around = float(np.median(echo[filled(outline)])) if hard else 0.0
        value = around * rng.uniform(0.5, 0.68) if hard else rng.uniform(0.03, 0.06)
        shadow = beam.behind(put("lesion", outline, value))
        gain *= 1 - np.float32(rng.uniform(0.1, 0.75)) * shadow
    if without != "cyst" and (hard or rng.random() < 0.6):
        radius = rng.uniform(9, 26)
        outline = blob(
            rng, spot_for(radius), radius, rng.uniform(0.45, 0.75), rng.normal() * 0.35, 0.16
        )
        gain *= 1 + np.float32(rng.uniform(0.4, 1.2)) * beam.behind(put("cyst", outline, 0.006))
    if without != "rib" and (hard or rng.random() < 0.5):
        deep = beam.inside & (beam.depth > 165) & (beam.depth < 215)
        spot = place_in(rng, deep, 8)
        outline = blob(rng, spot, rng.uniform(16, 30), 0.35, 0.0, 0.14, bend=0.25)
        gain *= 1 - np.float32(0.9) * beam.behind(put("rib", outline, 0.9))
    if hard:
        pair = [blob(rng, spot_for(10), rng.uniform(6, 11), 0.6, rng.normal() * 0.4, 0.15)
                for _ in range(2)]  # fmt: skip
        first = put("lymph nodes", pair[0], 0.035).copy()
        masks["lymph nodes"] = first | put("lymph nodes", pair[1], 0.035)
        side = rng.choice([-1.0, 1.0])
        start = (127.5 - side * rng.uniform(60, 90), rng.uniform(10, 50))
        needle = walk(rng, start, np.pi / 2 - side * rng.uniform(0.6, 1.1), 110, 0.01)
        masks["needle"] = drawn((needle, rng.uniform(1.0, 2.4))) & beam.inside
        dot = blob(rng, place_in(rng, gland & ~taken & ~masks["needle"], 5), 1.9, 0.8, 0.0, 0.15)
        masks["microcalcification"] = filled(dot) & beam.inside
        echo[masks["needle"] | masks["microcalcification"]] = 1.6
        for name in ("lesion", "cyst", "lymph nodes", "rib"):
            if name in masks:
                masks[name] = masks[name] & ~masks["needle"]
    for name in ("subcutaneous fat", "glandular tissue", "pectoral muscle"):
        masks[name] = masks[name] & ~taken
    millimetres = rng.uniform(0.12, 0.2)
    return Drawing(_render(rng, echo * gain, beam), masks, (millimetres, millimetres))


def _render(rng: np.random.Generator, echo: np.ndarray, beam: _Beam) -> np.ndarray:
    """Multiply by attenuation and speckle, compress, and black out what is not scanned."""
    loss = np.float32(rng.uniform(0.0, 0.004))
    echo = blur(echo, 0.8) * np.exp(-loss * beam.depth)
    grains = speckle(rng, rng.uniform(0.6, 1.0), rng.uniform(0.9, 1.8))
    calm = np.float32(rng.uniform(0.35, 0.9))  # compounding averages speckle out
    amplitude = echo * (1 - calm + calm * grains) + np.float32(rng.uniform(0.001, 0.006))
    decibels = np.float32(rng.uniform(38, 52))
    grey = 1 + 20 * np.log10(amplitude) / decibels + np.float32(rng.uniform(-0.08, 0.06))
    grey = np.where(beam.inside, np.clip(grey, 0.0, 1.0), 0.0)
    return as_rgb(grey)


ULTRASOUND = Scene(
    name="ultrasound",
    modality="ultrasound",
    view="breast ultrasound",
    structures=(
        "lesion", "cyst", "subcutaneous fat", "glandular tissue", "pectoral muscle", "rib",
    ),
    hard={
        "low_contrast": "lesion",
        "thin": "needle",
        "two_part": "lymph nodes",
        "tiny": "microcalcification",
    },
    optional=("cyst", "rib"),
    draw=_draw,
)  # fmt: skip
