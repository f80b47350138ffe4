"""Synthetic fundus photograph: retina, optic disc with cup, vessels, macula, and lesions.

Only schematic: left and right eyes are drawn, with random pigment, light and disease.
"""

from __future__ import annotations

import numpy as np

from medseg_gym.cases.phantoms.contours import SIZE, blob, drawn, filled, place_in, scaled, walk
from medseg_gym.cases.phantoms.scene import Drawing, Scene
from medseg_gym.cases.phantoms.textures import (
    COLUMNS,
    ROWS,
    colour_image,
    enlarge,
    rgb,
    smooth_noise,
    squared_distance,
    tint,
)


def _vessels(rng: np.random.Generator, disc: np.ndarray, toward: float) -> list:
    """Lines (points, width) of arcades that leave the disc and branch."""
    lines = []
    for up in (-1.0, 1.0):
        for away, width in ((1.0, 4.2), (1.0, 3.2), (-1.0, 2.6)):
            start = disc + rng.normal(size=2) * 2
            heading = np.arctan2(up, 0.35 * away * toward) + rng.normal() * 0.2
            curl = -up * away * toward * -rng.uniform(0.015, 0.035)
            trunk = walk(rng, start, heading, rng.uniform(110, 170), 0.09, curl)
            half = len(trunk) // 2
            width *= rng.uniform(0.8, 1.2)
            lines += [(trunk[: half + 1], width), (trunk[half:], width * 0.65)]
            for _ in range(2):
                at = int(rng.integers(4, len(trunk) - 4))
                step = trunk[at] - trunk[at - 1]
                turned = np.arctan2(step[1], step[0]) + rng.choice([-1, 1]) * rng.uniform(0.4, 0.9)
                branch = walk(rng, trunk[at], turned, rng.uniform(35, 80), 0.14)
                lines.append((branch, width * 0.45))
    return lines


def _draw(rng: np.random.Generator, hard: bool, without: str) -> Drawing:
    side = rng.choice([-1.0, 1.0])  # where the disc is
    middle = np.array([127.5, 127.5]) + rng.uniform(-5, 5, 2)
    radius = rng.uniform(104, 130)
    view = squared_distance(middle) < radius**2
    cut = radius * rng.uniform(0.72, 1.0)  # many cameras cut the circle above and below
    view &= np.abs(ROWS - np.float32(middle[1])) < cut
    view[[0, 1, -2, -1]] = view[:, [0, 1, -2, -1]] = False

    spot = middle + radius * np.array([side * rng.uniform(0.3, 0.55), rng.uniform(-0.12, 0.12)])
    size = radius * rng.uniform(0.13, 0.19)
    slant = rng.uniform(0.9, 2.2)
    disc = blob(rng, spot, size, rng.uniform(0.72, 0.95), slant, 0.09)
    inner = scaled(disc, rng.uniform(0.35, 0.7)) + rng.normal(size=2) * size * 0.1
    cup = (inner - inner.mean(axis=0)) * rng.uniform(0.8, 1.2, 2) + inner.mean(axis=0)
    cup += (blob(rng, (0, 0), size, rough=0.12) - blob(rng, (0, 0), size, rough=0.12)) * 0.25
    fovea = spot - radius * np.array([side * rng.uniform(0.75, 0.95), rng.uniform(-0.1, 0.05)])
    spread = radius * rng.uniform(0.12, 0.2)
    macula = blob(rng, fovea, spread, rng.uniform(0.6, 0.95), rng.uniform(0, 3), 0.16)

    light = (
        1
        + 0.25 * (COLUMNS / SIZE - 0.5) * rng.uniform(-1, 1)
        + 0.1 * enlarge(rng.standard_normal((3, 3)))
    )
    light *= 1.1 - rng.uniform(0.1, 0.4) / radius**2 * squared_distance(middle)
    tissue = 1 + np.float32(0.05) * smooth_noise(rng, 40) + np.float32(0.05) * smooth_noise(rng, 9)
    base = rgb(*rng.uniform((0.62, 0.26, 0.08), (0.85, 0.42, 0.2)))
    field = light * tissue * view * base

    masks = {"field of view": view, "optic disc": filled(disc) & view}
    masks["optic cup"] = filled(cup) & masks["optic disc"]
    masks["macula"] = filled(macula) & view & ~masks["optic disc"]
    tint(field, masks["macula"], 1 - rgb(0.22, 0.4, 0.4) * np.float32(rng.uniform(0.7, 1.2)))
    lines = _vessels(rng, spot, -side)
    vessels = drawn(*lines) & view
    _add_lesions(rng, field, masks, view & ~vessels, radius, hard, without)
    glow = rgb(0.14, 0.3, 0.16) * np.float32(rng.uniform(0.8, 1.2))
    tint(field, masks["optic disc"], 1.0, glow)
    step = rng.uniform(0.04, 0.07) if hard else rng.uniform(0.16, 0.26)
    tint(field, masks["optic cup"], 1.0, rgb(0.4, 1.0, 1.1) * np.float32(step))
    dark = rgb(0.72, 0.5, 0.6) ** np.float32(rng.uniform(0.7, 1.2))
    tint(field, vessels & ~masks["optic cup"], dark)
    masks["retinal vessels"] = vessels & ~masks["optic cup"]
    for name in ("haemorrhage", "haemorrhages", "cotton wool spot", "hard exudate"):
        if name in masks:
            masks[name] = masks[name] & ~vessels
    return Drawing(colour_image(rng, field, (0.008, 0.035)), masks, None)


def _add_lesions(
    rng: np.random.Generator,
    field: np.ndarray,
    masks: dict[str, np.ndarray],
    free: np.ndarray,
    radius: float,
    hard: bool,
    without: str,
) -> None:
    """Add lesions to `field` and `masks`, each where nothing nameable is yet."""
    free = free & ~masks["optic disc"] & ~masks["macula"]
    around = masks["field of view"] & ~masks["optic disc"]

    def spot(size: float, rough: float, aspect: float = 0.7) -> np.ndarray:
        nonlocal free
        at = place_in(rng, free, size * 1.3)
        outline = blob(rng, at, size, aspect * rng.uniform(0.8, 1.2), rng.uniform(0, 3), rough)
        free = free & ~filled(scaled(outline, 1.3))
        mask: np.ndarray = filled(outline) & around
        return mask

    def wanted(name: str, share: float) -> bool:
        return name != without and (hard or rng.random() < share)

    if wanted("haemorrhage", 0.6):
        masks["haemorrhage"] = spot(radius * rng.uniform(0.06, 0.16), 0.35)
        tint(field, masks["haemorrhage"], rgb(0.6, 0.4, 0.5))
        if hard:
            second = spot(radius * rng.uniform(0.05, 0.11), 0.3)
            tint(field, second & ~masks["haemorrhage"], rgb(0.6, 0.4, 0.5))
            masks["haemorrhages"] = masks["haemorrhage"] | second
    if wanted("cotton wool spot", 0.5):
        mask = spot(radius * rng.uniform(0.07, 0.14), 0.25)
        masks["cotton wool spot"] = mask
        tint(field, mask, 1.0, rgb(0.1, 0.24, 0.22))
    if wanted("hard exudate", 0.6):
        mask = spot(radius * rng.uniform(0.06, 0.15), 0.42)
        masks["hard exudate"] = mask
        tint(field, mask, rgb(1.05, 1.1, 0.8), rgb(0.12, 0.26, 0.0))
    dots = [  # distractors, too small to be asked for
        blob(rng, place_in(rng, free, 3), rng.uniform(1.0, 2.2), 0.8, 0.0, 0.1)
        for _ in range(int(rng.integers(0, 9)))
    ]
    tint(field, filled(*dots) & around, rgb(1.0, 1.1, 0.9), rgb(0.1, 0.2, 0.0))
    if hard:
        masks["microaneurysm"] = spot(rng.uniform(1.3, 2.6), 0.1, 0.9)
        tint(field, masks["microaneurysm"], rgb(0.6, 0.35, 0.4))


FUNDUS = Scene(
    name="fundus",
    modality="fundus",
    view="fundus photograph",
    structures=(
        "field of view", "optic disc", "optic cup", "macula", "haemorrhage", "cotton wool spot",
        "hard exudate",
    ),
    hard={
        "low_contrast": "optic cup",
        "thin": "retinal vessels",
        "two_part": "haemorrhages",
        "tiny": "microaneurysm",
    },
    optional=("cotton wool spot", "hard exudate"),
    draw=_draw,
)  # fmt: skip
