"""Synthetic colonoscopy frame: folded mucosa, the dark lumen, polyps, reflections, a tool.

Only schematic: light falls off with distance from the scope, bulges are shaded by the slope of a
smoothed height map, wet surfaces mirror the lamp.
"""

from __future__ import annotations

import numpy as np

from medseg_gym.cases.phantoms.contours import (
    SIZE,
    blob,
    drawn,
    filled,
    place_in,
    scaled,
    walk,
)
from medseg_gym.cases.phantoms.scene import Drawing, Scene
from medseg_gym.cases.phantoms.textures import (
    COLUMNS,
    ROWS,
    blur,
    colour_image,
    rgb,
    smooth_noise,
    squared_distance,
    tint,
)


def _fold(rng: np.random.Generator, lumen: np.ndarray, distance: float) -> np.ndarray:
    """Outline of a haustral fold: a crescent that bulges towards the lumen."""
    middle = lumen.mean(axis=0)
    at = rng.uniform(0, 2 * np.pi)
    spot = middle + distance * np.array([np.cos(at), np.sin(at)])
    size = distance * rng.uniform(0.5, 0.75)
    return blob(
        rng, spot, size, rng.uniform(0.2, 0.32), at + np.pi / 2, 0.12, bend=rng.uniform(0.35, 0.6)
    )


def _draw(rng: np.random.Generator, hard: bool, without: str) -> Drawing:
    view = _frame(rng)
    centre = np.array([127.5, 127.5]) + rng.uniform(-45, 45, 2)
    lumen = blob(rng, centre, rng.uniform(18, 46), rng.uniform(0.5, 0.9), rng.uniform(0, 3), 0.2)
    masks = {"lumen": filled(lumen) & view}
    height = np.zeros((SIZE, SIZE), np.float32)
    shade = np.ones((SIZE, SIZE), np.float32)
    reach = squared_distance(centre)
    depth = 1 - np.exp(-reach / np.float32(rng.uniform(50, 95) ** 2))
    shade *= np.float32(0.5) + np.float32(0.5) * depth
    taken = masks["lumen"].copy()
    for count in range(int(rng.integers(2, 5))):
        fold = filled(_fold(rng, lumen, rng.uniform(50, 110))) & view & ~taken
        height[fold] += 5
        if count == 0:
            masks["haustral fold"] = fold
            shade += np.float32(rng.uniform(0.12, 0.22)) * fold
        else:
            shade += np.float32(0.06) * fold
        taken |= fold
    base = rgb(*rng.uniform((0.62, 0.30, 0.22), (0.85, 0.46, 0.38)))
    colour = (1 + 0.06 * smooth_noise(rng, 12)) * base
    veins = [
        (walk(rng, rng.uniform(0, 255, 2), rng.uniform(0, 6.3), rng.uniform(30, 90), 0.3), 1.4)
        for _ in range(int(rng.integers(2, 8)))
    ]
    tint(colour, drawn(*veins), rgb(0.85, 0.6, 0.7))
    dome = _add_findings(rng, height, colour, masks, view, hard, without)
    height = blur(height, 2.0) + dome
    slope = np.zeros_like(height)
    slope[2:, 2:] = height[2:, 2:] - height[:-2, :-2]
    shade += np.clip(slope, -0.6, 0.6) * np.float32(rng.uniform(0.15, 0.3))
    shade *= 1 - np.float32(0.85) * blur(masks["lumen"], 2.5)
    field = colour * (np.clip(shade, 0.05, 1.5) * view)
    _add_reflections(rng, field, slope, view & ~masks["lumen"])
    _add_tools(rng, field, masks, view, hard, without)
    return Drawing(colour_image(rng, field, (0.005, 0.03)), masks, None)


def _frame(rng: np.random.Generator) -> np.ndarray:
    """Return the lit part of the frame: a square with cut corners, or all of it."""
    if rng.random() < 0.25:
        return np.ones((SIZE, SIZE), bool)
    edge = rng.uniform(3, 14)
    corner = rng.uniform(200, 240)
    x, y = np.abs(COLUMNS - 127.5), np.abs(ROWS - 127.5)
    view: np.ndarray = (x < 127.5 - edge) & (y < 127.5 - edge) & (x + y < corner)
    return view


def _add_findings(
    rng: np.random.Generator,
    height: np.ndarray,
    colour: np.ndarray,
    masks: dict[str, np.ndarray],
    view: np.ndarray,
    hard: bool,
    without: str,
) -> np.ndarray:
    """Add polyps (bulges), ulcers and stool (stains); return the dome of the polyp."""
    lumen, mucosa = masks["lumen"], colour.copy()
    free = view & ~lumen & ~masks["haustral fold"]

    def put(
        name: str, size: float, rough: float, aspect: float, bend: float = 0.0, taper: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        nonlocal free
        at = place_in(rng, free, size * 1.2)
        outline = blob(rng, at, size, aspect, rng.uniform(0, 6.3), rough, bend, taper)
        free = free & ~filled(scaled(outline, 1.15))
        mask = filled(outline) & view & ~lumen
        for other in masks:  # what is drawn later covers what is below
            masks[other] = masks[other] & ~mask
        masks[name] = mask
        return mask, outline

    if without != "stool residue" and (hard or rng.random() < 0.5):
        mask, _ = put("stool residue", rng.uniform(14, 34), 0.35, 0.6, bend=0.3)
        tint(colour, mask, 0.0, rgb(0.62, 0.47, 0.12) * np.float32(rng.uniform(0.8, 1.2)))
        height[mask] += 2
    if hard or rng.random() < 0.5:
        parts = []
        for _ in range(2 if hard else 1):
            mask, outline = put("ulcer", rng.uniform(10, 24), 0.3, rng.uniform(0.5, 0.9))
            rim = filled(scaled(outline, 1.2)) & view  # inflamed
            tint(colour, rim, rgb(1.0, 0.72, 0.72))
            tint(colour, mask, 0.0, rgb(0.86, 0.78, 0.6))
            height[mask] -= 1.5
            parts.append(mask)
        if hard:
            masks["ulcers"] = parts[0] & ~parts[1] | parts[1]
    size = rng.uniform(16, 56)
    mask, _ = put("polyp", size, rng.uniform(0.1, 0.22), rng.uniform(0.6, 0.95), taper=0.25)
    np.copyto(colour, mucosa, where=mask)
    redness = rng.uniform(0.05, 0.09) if hard else rng.uniform(0.2, 0.4)
    tint(colour, mask, rgb(1 + 0.2 * redness, 1 - redness, 1 - redness))
    bulge = rng.uniform(0.8, 1.5) if hard else rng.uniform(3, 7)
    height[mask] += bulge
    dome: np.ndarray = 2 * bulge * blur(mask, max(6, size / 3)) * mask
    if hard:
        mask, _ = put("angioectasia", rng.uniform(1.4, 2.8), 0.15, 0.9)
        tint(colour, mask, 0.0, rgb(0.6, 0.05, 0.06))
    return dome


def _add_reflections(
    rng: np.random.Generator, field: np.ndarray, slope: np.ndarray, wet: np.ndarray
) -> None:
    """White spots, mostly on slopes that face the lamp."""
    facing = wet & (slope > 0.35)
    glints = []
    for count in range(int(rng.integers(4, 14))):
        where = facing if count % 3 else wet
        spot = place_in(rng, where if where.any() else wet)
        glints.append(blob(rng, spot, rng.uniform(1.2, 4.5), 0.5, rng.uniform(0, 3), 0.25))
    tint(field, filled(*glints) & wet, 0.0, 1.1)


def _add_tools(
    rng: np.random.Generator,
    field: np.ndarray,
    masks: dict[str, np.ndarray],
    view: np.ndarray,
    hard: bool,
    without: str,
) -> None:
    """Tools lie above everything and cover it."""
    tools = {}
    if without != "instrument" and (hard or rng.random() < 0.45):
        start = np.array([rng.choice([8.0, 247.0]), rng.uniform(140, 250)])
        aim = np.arctan2(130 - start[1], 127 - start[0]) + rng.normal() * 0.3
        shaft = walk(rng, start, aim, rng.uniform(60, 120), 0.0)
        width = rng.uniform(10, 22)
        jaw = blob(rng, shaft[-1], width * 0.9, 0.7, aim, 0.25, taper=0.4)
        tools["instrument"] = (drawn((shaft, width)) | filled(jaw)) & view
        across = -np.sin(aim) * (COLUMNS - start[0]) + np.cos(aim) * (ROWS - start[1])
        gloss = 0.35 + 0.45 * np.exp(-((across[tools["instrument"]] / width - 0.1) ** 2) * 12)
        field[:, tools["instrument"]] = gloss * rgb(0.9, 0.95, 1.05)[:, :, 0]
    if hard:
        start = np.array([rng.uniform(60, 200), 240.0])
        wire = walk(rng, start, -np.pi / 2 + rng.normal() * 0.4, rng.uniform(90, 150), 0.07)
        tools["guide wire"] = drawn((wire, rng.uniform(1.0, 2.6))) & view
        tint(field, tools["guide wire"], 0.0, float(rng.choice([0.12, 0.95])))
    for name, tool in tools.items():
        for other in masks:
            if other != "angioectasia":
                masks[other] = masks[other] & ~tool
        masks[name] = tool
    if len(tools) == 2:
        masks["instrument"] = masks["instrument"] & ~masks["guide wire"]


ENDOSCOPY = Scene(
    name="endoscopy",
    modality="endoscopy",
    view="colonoscopy",
    structures=("polyp", "lumen", "haustral fold", "ulcer", "stool residue", "instrument"),
    hard={
        "low_contrast": "polyp",
        "thin": "guide wire",
        "two_part": "ulcers",
        "tiny": "angioectasia",
    },
    optional=("stool residue", "instrument"),
    draw=_draw,
)
