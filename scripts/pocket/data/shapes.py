"""Synthetic images of no organ at all: regions of any shape, size, texture and contrast.

They keep the pupil from learning only what phantoms look like. An image is a label map, painted
from blobs, corners, tubes, rings, dense cells or a thresholded random field, then given grey
levels, textures and the faults of an acquisition.
"""

from __future__ import annotations

import numpy as np

from medseg_gym.cases.phantoms.contours import SIZE, Canvas, blob, scaled, walk
from medseg_gym.cases.phantoms.textures import blur, grain, smooth_noise, speckle

MODES = ("scene", "cells", "field", "tubes", "rings", "twins")


def draw_shapes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image.

    Returns:
        (256, 256, 3) uint8 image and (256, 256) int16 labels from 1; 0 is the ground.
    """
    mode = MODES[int(rng.choice(len(MODES), p=[0.36, 0.14, 0.16, 0.12, 0.1, 0.12]))]
    labels = _field_labels(rng) if mode == "field" else _painted_labels(rng, mode)
    return _render(rng, labels, mode), labels.astype(np.int16)


def _outline(rng: np.random.Generator, radius: float) -> np.ndarray:
    centre = rng.uniform(8, SIZE - 8, 2)
    if rng.random() < 0.12:  # straight sides and corners
        corners = int(rng.integers(3, 7))
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        reach = radius * rng.uniform(0.6, 1.2, (corners, 1))
        outline: np.ndarray = centre + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return outline
    return blob(
        rng,
        centre,
        radius,
        aspect=float(np.exp(rng.uniform(-1.0, 0.0))),
        angle=float(rng.uniform(0, 2 * np.pi)),
        rough=float(rng.choice([0.03, 0.12, 0.25, 0.4])),
        bend=float(rng.choice([0.0, 0.0, 0.5, 0.9])),
        taper=float(rng.choice([0.0, 0.0, 0.4])),
        orders=(2, int(rng.integers(4, 14))),
    )


def _painted_labels(rng: np.random.Generator, mode: str) -> np.ndarray:
    canvas, label = Canvas(), 0
    if mode != "cells" and rng.random() < 0.6:  # a body that holds the rest
        body = blob(
            rng,
            rng.normal(SIZE / 2, 10, 2),
            float(rng.uniform(80, 150)),
            aspect=float(rng.uniform(0.6, 1)),
            rough=float(rng.choice([0.02, 0.08, 0.15])),
        )
        label += 1
        canvas.fill(body, label)
        if rng.random() < 0.4:
            label += 1
            canvas.fill(scaled(body, float(rng.uniform(0.55, 0.93))), label)
    count = int(rng.integers(15, 45) if mode == "cells" else rng.integers(3, 12))
    for _ in range(count):
        label += 1
        if mode == "cells":
            canvas.fill(_outline(rng, float(rng.uniform(5, 17))), label)
            continue
        radius = float(np.exp(rng.uniform(np.log(3.5), np.log(75))))
        special = rng.random() < 0.6
        if mode == "tubes" and special:
            path = walk(
                rng,
                rng.uniform(8, SIZE - 8, 2),
                float(rng.uniform(0, 2 * np.pi)),
                float(rng.uniform(40, 220)),
                wiggle=float(rng.uniform(0.05, 0.4)),
            )
            canvas.line(path, float(np.exp(rng.uniform(np.log(1.5), np.log(16)))), label)
        elif mode == "rings" and special:
            outline = _outline(rng, max(radius, 14))
            canvas.fill(outline, label)
            label += 1
            canvas.fill(scaled(outline, float(rng.uniform(0.45, 0.88))), label)
        elif mode == "twins" and special:  # one target in two or three parts
            first = _outline(rng, radius)
            for _ in range(int(rng.integers(2, 4))):
                canvas.fill(first + rng.normal(0, 1.6 * radius, 2), label)
        else:
            canvas.fill(_outline(rng, radius), label)
    return canvas.labels


def _field_labels(rng: np.random.Generator) -> np.ndarray:
    field = smooth_noise(rng, int(rng.integers(3, 10)))
    field = field + float(rng.uniform(0, 0.5)) * smooth_noise(rng, int(rng.integers(12, 40)))
    cuts = np.sort(rng.uniform(0.1, 0.9, int(rng.integers(1, 4))))
    labels: np.ndarray = np.digitize(field, np.quantile(field[::4, ::4], cuts)) + 1
    return labels


def _render(rng: np.random.Generator, labels: np.ndarray, mode: str) -> np.ndarray:
    count = int(labels.max()) + 1
    values = _levels(rng, count, mode)
    colourful = rng.random() < 0.3
    field: np.ndarray = values[labels]
    for noise in (
        smooth_noise(rng, int(rng.integers(20, 90))),
        grain(rng, float(rng.uniform(0.6, 4))),
    ):
        amounts = np.abs(rng.standard_normal(count)) * float(rng.choice([0.0, 0.02, 0.06, 0.1]))
        field = field + amounts[labels] * noise
    field = blur(field.astype(np.float32), float(rng.choice([0.5, 0.8, 1.2, 2.0, 3.2])))
    if rng.random() < 0.5:  # uneven light or coil
        field = field * np.exp(smooth_noise(rng, int(rng.integers(2, 5))) * rng.uniform(0.03, 0.2))
    fault = rng.random()
    if fault < 0.6:
        strength = float(rng.choice([0.01, 0.03, 0.06, 0.12]))
        field = field + strength * grain(rng, float(rng.choice([0.0, 0.7])))
    elif fault < 0.85:
        strength = float(rng.uniform(0.1, 0.6))
        rough = speckle(rng, float(rng.uniform(0.5, 1.6)), float(rng.uniform(0.8, 3)))
        field = field * (1 - strength + strength * rough)
    planes = field[None]
    if colourful:
        tint = 1 + rng.normal(0, 0.12, (3, 1, 1))
        own = rng.normal(0, float(rng.uniform(0.02, 0.15)), (3, count))
        planes = field[None] * tint + own[:, labels]
    low, high = np.percentile(planes[:, ::4, ::4], [rng.uniform(0, 2), rng.uniform(98, 100)])
    planes = np.clip((planes - low) / (high - low + 1e-6), 0, 1)
    pixels = np.round(255 * np.broadcast_to(planes, (3, SIZE, SIZE)))
    return np.ascontiguousarray(pixels.transpose(1, 2, 0).astype(np.uint8))


def _levels(rng: np.random.Generator, count: int, mode: str) -> np.ndarray:
    """One grey level per label: any, alike against the ground, or a look-alike crowd."""
    values = rng.uniform(0, 1, count)
    kind = rng.random()
    if mode == "cells" or kind < 0.3:
        ground = rng.uniform(0.15, 0.85)
        values = ground + rng.choice([-1, 1]) * rng.uniform(0.08, 0.5) + rng.normal(0, 0.06, count)
        values[0] = ground
    elif kind < 0.45 and count > 2:
        values[1:] = values[1] + rng.normal(0, 0.04, count - 1)
    if mode != "cells" and rng.random() < 0.4:
        values[0] = rng.uniform(0, 0.08)
    return values
