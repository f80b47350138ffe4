"""Synthetic brain MRI: an axial slice with skull, folded grey matter, ventricles and a tumour.

Only schematic: T1-, T2- and FLAIR-like grey scales are drawn at random, tissue borders are random
curves of no anatomical authority. The patient's right is on the left of the image.
"""

from __future__ import annotations

import numpy as np

from medseg_gym.cases.phantoms.contours import (
    Canvas,
    blob,
    drawn,
    filled,
    mirrored,
    place_in,
    scaled,
    turn,
    walk,
)
from medseg_gym.cases.phantoms.scene import Drawing, Scene
from medseg_gym.cases.phantoms.textures import ROWS, enlarge, grey_image, smooth_noise, vary

_TISSUES = (
    "air", "scalp", "skull", "fluid", "grey matter", "white matter", "left lateral ventricle",
    "right lateral ventricle", "left basal ganglia", "right basal ganglia", "oedema", "rim",
    "core", "infarct", "cerebral vein", "microbleed",
)  # fmt: skip
_LABEL = {name: label for label, name in enumerate(_TISSUES)}
#                air scalp skull csf  grey white  ventricles  ganglia  oedema rim core infarct ..
_SEQUENCES = (
    (0.03, 0.85, 0.10, 0.12, 0.42, 0.66, 0.12, 0.12, 0.46, 0.46, 0.34, 0.88, 0.25, 0.3, 0.90, 0.05),
    (0.03, 0.60, 0.08, 0.90, 0.60, 0.36, 0.92, 0.92, 0.57, 0.57, 0.88, 0.73, 0.97, 0.8, 0.08, 0.06),
    (0.03, 0.55, 0.08, 0.10, 0.57, 0.40, 0.08, 0.08, 0.60, 0.60, 0.88, 0.74, 0.28, 0.8, 0.95, 0.05),
)  # T1 with contrast agent, T2, FLAIR


def _draw(rng: np.random.Generator, hard: bool, without: str) -> Drawing:
    canvas = Canvas()
    middle = np.array([127.5, 127.5]) + rng.uniform(-6, 6, 2)
    length, tilt = rng.uniform(88, 116), rng.normal() * 0.12
    head = blob(rng, (0, 0), length, rng.uniform(0.76, 0.9), np.pi / 2, 0.03, taper=0.06)

    def put(outline: np.ndarray, name: str) -> np.ndarray:
        placed = turn(outline, tilt) + middle
        canvas.fill(placed, _LABEL[name])
        return placed

    head = np.clip(turn(head, tilt) + middle, 3, 252) - middle
    head = turn(head, -tilt)
    put(head, "scalp")
    put(scaled(head, rng.uniform(0.90, 0.95)), "skull")
    inner = scaled(head, rng.uniform(0.80, 0.87))
    placed_inner = put(inner, "fluid")
    ripple = blob(rng, (0, 0), 1.0, rough=0.05, orders=(9, 22))
    radial = np.sqrt((ripple**2).sum(axis=1, keepdims=True))
    brain = scaled(inner, rng.uniform(0.93, 0.97)) * (1 - np.abs(radial - 1) * 0.6)
    brain_mask = filled(put(brain, "grey matter"))
    _paint_white_matter(rng, canvas, scaled(brain, 0.86), middle, tilt)
    midline = turn(np.array([[0.0, -length], [0.0, -0.25 * length]]), tilt) + middle
    fissure = drawn((midline, rng.uniform(2, 4)))

    for side, name in ((-1, "right"), (1, "left")):
        spot = (side * 0.29 * length, 0.0)
        size = length * rng.uniform(0.11, 0.16)
        nucleus = blob(rng, spot, size, 0.5, np.pi / 2 - 0.35 * side, 0.18, bend=0.2 * side)
        put(nucleus, f"{name} basal ganglia")
    horn = blob(
        rng, (0.15 * length, -0.05 * length), length * rng.uniform(0.2, 0.32),
        rng.uniform(0.2, 0.36), np.pi / 2 + rng.uniform(-0.1, 0.1), 0.16,
        bend=rng.uniform(-0.45, -0.2), taper=rng.uniform(-0.3, 0.3),
    )  # fmt: skip
    put(horn, "left lateral ventricle")
    other = mirrored(horn, 0.0) + rng.normal(size=horn.shape) * 0.3
    put(scaled(other, rng.uniform(0.8, 1.15)) - [0.01 * length, 0.0], "right lateral ventricle")

    labels = canvas.labels
    labels[fissure & filled(placed_inner)] = _LABEL["fluid"]
    labels[(labels >= _LABEL["grey matter"]) & ~brain_mask] = _LABEL["fluid"]
    masks = _anatomy(labels, brain_mask)
    _add_lesions(rng, labels, brain_mask, length, hard, without)
    for name in ("oedema", "infarct", "cerebral vein", "microbleed"):
        masks[name] = labels == _LABEL[name]
    masks["tumour"] = (labels == _LABEL["core"]) | (labels == _LABEL["rim"])
    lesion = (labels >= _LABEL["oedema"]) & (labels <= _LABEL["infarct"])
    for name in ("left", "right"):
        masks[f"{name} lateral ventricle"] = masks[f"{name} lateral ventricle"] & ~lesion
        masks[f"{name} basal ganglia"] = masks[f"{name} basal ganglia"] & ~lesion
    masks["lateral ventricles"] = masks["left lateral ventricle"] | masks["right lateral ventricle"]
    masks["white matter"] = masks["white matter"] & ~lesion
    return Drawing(_render(rng, labels, hard), masks, (95.0 / length,) * 2)


def _paint_white_matter(
    rng: np.random.Generator, canvas: Canvas, outline: np.ndarray, middle: np.ndarray, tilt: float
) -> None:
    """White matter reaches into the gyri: the outline is rippled at high angular frequency."""
    ripple = blob(rng, (0, 0), 1.0, rough=rng.uniform(0.12, 0.2), orders=(7, 22))
    radial = np.sqrt((ripple**2).sum(axis=1, keepdims=True))
    folded = outline * np.clip(radial - 0.05, 0.6, 1.08)
    canvas.fill(turn(folded, tilt) + middle, _LABEL["white matter"])


def _anatomy(labels: np.ndarray, brain: np.ndarray) -> dict[str, np.ndarray]:
    sides = [f"{side} {structure}" for structure in ("lateral ventricle", "basal ganglia")
             for side in ("left", "right")]  # fmt: skip
    masks = {name: labels == _LABEL[name] for name in (*sides, "white matter")}
    return {**masks, "head": labels > 0, "brain": brain}


def _add_lesions(
    rng: np.random.Generator,
    labels: np.ndarray,
    brain: np.ndarray,
    length: float,
    hard: bool,
    without: str,
) -> None:
    if without != "tumour" and (hard or rng.random() < 0.75):
        size = length * rng.uniform(0.09, 0.26)
        spot = place_in(rng, brain, size)
        angle, aspect = rng.uniform(0, 6.3), rng.uniform(0.6, 0.95)
        tumour = blob(rng, spot, size, aspect, angle, rng.uniform(0.1, 0.3))
        if without != "oedema" and rng.random() < 0.6:
            around = blob(rng, spot, size * rng.uniform(1.35, 1.9), aspect, angle, 0.3, bend=0.2)
            labels[filled(around) & brain] = _LABEL["oedema"]
        labels[filled(tumour) & brain] = _LABEL["rim"]
        necrotic = rng.uniform(0.55, 0.85) if rng.random() < 0.6 else 0.0
        if necrotic:
            labels[filled(scaled(tumour, necrotic)) & brain] = _LABEL["core"]
    healthy = brain & (labels <= _LABEL["white matter"]) & (labels >= _LABEL["grey matter"])
    if hard or rng.random() < 0.3:
        size = length * rng.uniform(0.08, 0.18)
        spot = place_in(rng, healthy, size)
        infarct = filled(blob(rng, spot, size, 0.6, rng.uniform(0, 6.3), 0.28, taper=0.4))
        labels[infarct & healthy] = _LABEL["infarct"]
        healthy &= ~infarct
    if hard:
        start, end = place_in(rng, healthy, 5), place_in(rng, healthy, 16)
        vein = walk(rng, start, np.arctan2(*(end - start)[::-1]), rng.uniform(45, 75), 0.2)
        labels[drawn((vein, rng.uniform(1.0, 2.4))) & healthy] = _LABEL["cerebral vein"]
        healthy = labels == _LABEL["white matter"]
        bleed = blob(rng, place_in(rng, healthy, 4), rng.uniform(1.1, 2.7), 0.9, 0.0, 0.12)
        labels[filled(bleed) & healthy] = _LABEL["microbleed"]


def _render(rng: np.random.Generator, labels: np.ndarray, hard: bool) -> np.ndarray:
    sequence = int(rng.integers(len(_SEQUENCES)))
    values = np.array([vary(rng, value, 0.03) for value in _SEQUENCES[sequence]], np.float32)
    values[_LABEL["right lateral ventricle"]] = values[_LABEL["left lateral ventricle"]]
    values[_LABEL["right basal ganglia"]] = values[_LABEL["left basal ganglia"]]
    field = values.take(labels)
    if hard:  # an infarct in its first hours: a faint veil over whatever lies below
        shift = rng.uniform(0.07, 0.12) * (1 if sequence else -1)
        tissue = (values[_LABEL["grey matter"]] + values[_LABEL["white matter"]]) / 2
        field[labels == _LABEL["infarct"]] = tissue + shift
    texture = smooth_noise(rng, int(rng.integers(36, 72)))
    field += texture * np.float32(rng.uniform(0.015, 0.04)) * (labels > _LABEL["skull"])
    coil = enlarge(rng.standard_normal((3, 3)))  # smooth sensitivity of the receive coil
    field *= np.exp(np.float32(rng.uniform(0.02, 0.15)) * coil)
    if rng.random() < 0.15:  # faint ringing along the phase-encoding direction
        field += np.float32(0.02) * np.sin(ROWS * np.float32(rng.uniform(0.4, 1.2)))
    return grey_image(rng, field, noise=(0.01, 0.05))


BRAIN = Scene(
    name="brain",
    modality="MRI",
    view="brain MRI",
    structures=(
        "head", "brain", "white matter", "left lateral ventricle", "right lateral ventricle",
        "left basal ganglia", "right basal ganglia", "tumour", "oedema", "infarct",
    ),
    hard={
        "low_contrast": "infarct",
        "thin": "cerebral vein",
        "two_part": "lateral ventricles",
        "tiny": "microbleed",
    },
    optional=("tumour", "oedema"),
    draw=_draw,
)  # fmt: skip
