"""A schematic abdomen CT in slices: organs, a tube of vessel, and a lesion in few slices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from medseg_gym.cases.phantoms.contours import Canvas, scaled
from medseg_gym.cases.phantoms.textures import blur, grain, smooth_noise, vary
from medseg_gym.cases.phantoms.volumes.solids import Solid

ORGANS = ("liver", "spleen", "right kidney", "left kidney", "aorta")
LESION = "liver lesion"

# label: (structure, grey value, spread); painted in this order
_TISSUES = (
    ("", 0.02, 0.01),
    ("body", 0.30, 0.05),
    ("bowel", 0.46, 0.06),
    ("liver", 0.60, 0.06),
    ("spleen", 0.62, 0.07),
    ("right kidney", 0.68, 0.06),
    ("left kidney", 0.68, 0.06),
    ("aorta", 0.80, 0.08),
    ("vertebra", 0.92, 0.05),
    (LESION, 0.40, 0.03),
)
_LABEL = {name: label for label, (name, _, _) in enumerate(_TISSUES)}
_TUBE = 4.0
_TEXTURE_STEP = 4  # slices between two drawn textures; those between are mixed


class VolumeDrawing(NamedTuple):
    """(D, 256, 256) uint8 image, bool masks by structure, mm between slices, rows, columns."""

    image: np.ndarray
    masks: Mapping[str, np.ndarray]
    spacing: tuple[float, float, float]


def draw_abdomen(rng: np.random.Generator) -> VolumeDrawing:
    """Draw a volume of 20 to 36 slices, 4 to 7 mm apart at about 1 mm a pixel."""
    depth = int(rng.integers(20, 37))
    width = rng.uniform(92, 116)
    solids = _solids(rng, width, depth)
    labels = np.stack([_slice(solids, (index + 0.5) / depth) for index in range(depth)])
    masks = {name: labels == _LABEL[name] for name in (*ORGANS, LESION)}
    masks["liver"] |= masks[LESION]
    pixel = 170.0 / width
    return VolumeDrawing(_render(rng, labels), masks, (float(rng.uniform(4, 7)), pixel, pixel))


def _solids(rng: np.random.Generator, width: float, depth: int) -> list[Solid]:
    middle = np.array([127.5, 127.5]) + rng.uniform(-5, 5, 2)

    def organ(
        name: str, x: float, y: float, z: float, half: float, radius: float, aspect: float,
        angle: float = 0.0, rough: float = 0.12, drift: float = 0.2,
    ) -> Solid:  # fmt: skip
        centre = middle + np.array([x, y * 0.76]) * width + rng.normal(size=2) * 0.03 * width
        return Solid.random(
            rng,
            name,
            z + rng.uniform(-0.05, 0.05),
            half * rng.uniform(0.85, 1.15),
            centre,
            radius * width * rng.uniform(0.85, 1.15),
            aspect,
            angle,
            rough,
            drift,
        )

    bowels = [
        organ("bowel", x, y, z, half, 0.1, 0.7, rng.uniform(0, 3))
        for x, y, z, half in (
            rng.uniform((-0.4, -0.4, 0, 0.06), (0.5, 0.3, 1, 0.2))
            for _ in range(int(rng.integers(8, 15)))
        )
    ]
    liver = organ("liver", -0.40, -0.18, 0.56, 0.36, 0.44, 0.72, 0.5, 0.2)
    lesion_half = rng.uniform(1.2, 2.6) / depth  # so that it appears in two to five slices
    z = liver.middle + rng.uniform(-0.4, 0.4) * liver.half
    spot = liver.centre + rng.uniform(-0.3, 0.3, 2) * liver.radius * np.array([1, liver.aspect])
    lesion = Solid.random(
        rng, LESION, z, lesion_half, spot, width * rng.uniform(0.08, 0.13), 0.8, rng.uniform(0, 3)
    )
    return [
        organ("body", 0.0, 0.0, 0.5, _TUBE, 1.0, 0.76, rough=0.03, drift=0.03),
        *bowels,
        liver,
        organ("spleen", 0.62, 0.06, 0.58, 0.26, 0.27, 0.5, 1.4),
        organ("right kidney", -0.42, 0.50, 0.40, 0.28, 0.17, 0.65, -1.1),
        organ("left kidney", 0.42, 0.50, 0.44, 0.28, 0.17, 0.65, -1.9),
        organ("aorta", 0.07, 0.22, 0.5, _TUBE, 0.08, 0.95, rough=0.08, drift=0.8),
        organ("vertebra", 0.0, 0.55, 0.5, _TUBE, 0.16, 0.8, rough=0.08, drift=0.2),
        lesion,
    ]


def _slice(solids: list[Solid], z: float) -> np.ndarray:
    canvas = Canvas()
    for solid in solids:
        outline = solid.outline(z)
        if outline is None:
            continue
        if solid.name == LESION:  # it stays within the liver
            before = canvas.labels
            liver = before == _LABEL["liver"]
            canvas.fill(outline, _LABEL[LESION])
            after = canvas.labels
            return np.where((after == _LABEL[LESION]) & ~liver, before, after)
        if solid.name == "body":
            outline[:] = np.clip(outline, 2, 253)
        elif solid.name != "bowel":
            canvas.fill(scaled(outline, 1.0, grow=2.0), _LABEL["body"])
        canvas.fill(outline, _LABEL[solid.name])
    return canvas.labels


def _render(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    values = np.array([vary(rng, value, spread) for _, value, spread in _TISSUES], np.float32)
    values[_LABEL["left kidney"]] = values[_LABEL["right kidney"]]
    sign = 1 if rng.random() < 0.25 else -1
    values[_LABEL[LESION]] = values[_LABEL["liver"]] + sign * rng.uniform(0.12, 0.22)
    depth = len(labels)
    cells, strength = int(rng.integers(30, 60)), np.float32(rng.uniform(0.01, 0.03))
    knots = [smooth_noise(rng, cells) for _ in range(depth // _TEXTURE_STEP + 2)]
    sharpness, noise = rng.uniform(0.5, 1.4), np.float32(rng.uniform(0.01, 0.05))
    contrast, brightness = rng.uniform(0.85, 1.15), rng.uniform(-0.05, 0.05)
    image = np.empty(labels.shape, np.uint8)
    for index, plane in enumerate(labels):
        low, share = divmod(index, _TEXTURE_STEP)
        mix = np.float32(share / _TEXTURE_STEP)
        texture = (1 - mix) * knots[low] + mix * knots[low + 1]
        field = values.take(plane) + texture * strength * (plane > 0)
        field = blur(field, sharpness) + noise * grain(rng, 0.6)
        field = field * contrast + 0.45 * (1 - contrast) + brightness
        image[index] = np.rint(255 * np.clip(field, 0, 1)).astype(np.uint8)
    return image
