"""Synthetic abdomen CT: an axial slice with organs inside a body outline.

Only schematic: organs lie roughly where they do in a person (the patient's right is on the left of
the image), but shapes, sizes and grey values are random and of no anatomical authority.
"""

from __future__ import annotations

import numpy as np

from medseg_gym.cases.phantoms.contours import (
    Canvas,
    blob,
    drawn,
    filled,
    place_in,
    scaled,
    turn,
    walk,
)
from medseg_gym.cases.phantoms.scene import Drawing, Scene
from medseg_gym.cases.phantoms.textures import grey_image, smooth_noise, vary

# label: (structure, grey value, spread); painted in about this order
_TISSUES = (
    ("", 0.02, 0.02),
    ("body", 0.27, 0.05),  # subcutaneous fat
    ("muscle", 0.50, 0.04),
    ("fat", 0.25, 0.05),
    ("bowel", 0.48, 0.08),
    ("gas", 0.04, 0.02),
    ("liver", 0.62, 0.07),
    ("stomach", 0.48, 0.10),
    ("spleen", 0.60, 0.07),
    ("pancreas", 0.53, 0.06),
    ("right kidney", 0.66, 0.08),
    ("left kidney", 0.66, 0.0),  # takes the value of the right kidney
    ("renal pelvis", 0.44, 0.08),
    ("inferior vena cava", 0.60, 0.08),
    ("aorta", 0.74, 0.12),
    ("vertebra", 0.90, 0.06),
    ("canal", 0.46, 0.04),
    ("rib", 0.90, 0.06),
    ("gallbladder", 0.36, 0.03),
    ("liver tumour", 0.40, 0.05),
    ("hepatic vessel", 0.80, 0.05),
    ("lymph node", 0.62, 0.05),
)
_LABEL = {name: label for label, (name, _, _) in enumerate(_TISSUES)}


class _Patient:
    """Places body coordinates (x to the image's right, y to the back) into the image."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.width = rng.uniform(84, 116)
        self.depth = self.width * rng.uniform(0.68, 0.84)
        self.angle = rng.normal() * 0.1
        self.middle = np.array([127.5, 127.5]) + rng.uniform(-6, 6, 2)

    def at(self, x: float, y: float, jitter: float = 0.04) -> np.ndarray:
        spot = np.array([[x * self.width, y * self.depth]])
        spot += self.rng.normal(size=(1, 2)) * jitter * self.width
        position: np.ndarray = turn(spot, self.angle)[0] + self.middle
        return position

    def organ(
        self,
        x: float,
        y: float,
        radius: float,
        aspect: float,
        angle: float,
        rough: float,
        bend: float = 0.0,
        taper: float = 0.0,
    ) -> np.ndarray:
        size = self.width * radius * self.rng.uniform(0.8, 1.2)
        tilt = self.angle + angle + self.rng.normal() * 0.2
        return blob(
            self.rng,
            self.at(x, y),
            size,
            aspect * self.rng.uniform(0.85, 1.15),
            tilt,
            rough,
            bend,
            taper,
        )


def _organs(rng: np.random.Generator, patient: _Patient) -> list[tuple[str, np.ndarray]]:
    organ = patient.organ
    return [
        ("liver", organ(-0.44, -0.22, 0.46, 0.72, 0.5, rough=0.22, bend=0.22, taper=0.4)),
        ("stomach", organ(0.34, -0.40, 0.29, 0.55, 0.5, rough=0.2, bend=0.35, taper=0.25)),
        ("spleen", organ(0.66, 0.10, 0.28, 0.42, 1.4, rough=0.16, bend=0.45)),
        ("pancreas", organ(0.08, -0.02, 0.24, 0.30, -0.4, rough=0.25, bend=0.45, taper=0.3)),
        ("right kidney", organ(-0.44, 0.42, 0.17, 0.58, -1.1, rough=0.1, bend=0.4)),
        ("left kidney", organ(0.44, 0.44, 0.17, 0.58, -1.9, rough=0.1, bend=-0.4)),
        ("inferior vena cava", organ(-0.13, 0.13, 0.085, 0.65, 0.2, rough=0.15)),
        ("aorta", organ(0.08, 0.14, 0.080, 0.95, 0.0, rough=0.1)),
    ]


def _paint_spine(patient: _Patient, canvas: Canvas) -> None:
    rng, unit = patient.rng, patient.width
    bone, tilt = _LABEL["vertebra"], patient.angle
    x, y = patient.at(0.0, 0.42, 0.02)
    down = turn(np.array([[0.0, 1.0]]), tilt)[0] * unit
    side = turn(np.array([[1.0, 0.0]]), tilt)[0] * unit
    for sign in (-1.0, 1.0):
        spot = np.array([x, y]) + 0.17 * down + sign * 0.15 * side
        canvas.fill(blob(rng, spot, 0.15 * unit, 0.28, tilt + 0.25 * sign, rough=0.15), bone)
    process = np.array([x, y]) + 0.25 * down
    canvas.fill(blob(rng, process, 0.12 * unit, 0.34, tilt + np.pi / 2, rough=0.15), bone)
    canvas.fill(blob(rng, (x, y), 0.16 * unit, 0.78, tilt, rough=0.08, bend=-0.12), bone)
    canal = np.array([x, y]) + 0.16 * down
    canvas.fill(blob(rng, canal, 0.065 * unit, 0.8, tilt, rough=0.08), _LABEL["canal"])


def _paint_wall(patient: _Patient, canvas: Canvas) -> None:
    rng = patient.rng
    aspect = patient.depth / patient.width
    body = blob(rng, patient.middle, patient.width, aspect, patient.angle, 0.025, orders=(2, 5))
    body[:, 1] = np.clip(body[:, 1], 2, 253)
    body[:, 0] = np.clip(body[:, 0], 2, 253)
    canvas.fill(body, _LABEL["body"])
    wall = scaled(body, rng.uniform(0.84, 0.95))
    canvas.fill(wall, _LABEL["muscle"])
    canvas.fill(scaled(wall, rng.uniform(0.86, 0.92)), _LABEL["fat"])
    for spot in scaled(wall, 0.95)[:: int(rng.integers(6, 11))]:
        toward = np.arctan2(*(spot - patient.middle)[::-1]) + np.pi / 2
        canvas.fill(blob(rng, spot, rng.uniform(3.5, 6.5), 0.5, toward, 0.1), _LABEL["rib"])


def _draw(rng: np.random.Generator, hard: bool, without: str) -> Drawing:
    patient, canvas = _Patient(rng), Canvas()
    _paint_wall(patient, canvas)
    wall = canvas.labels
    for _ in range(int(rng.integers(5, 11))):
        spot = patient.at(rng.uniform(-0.5, 0.6), rng.uniform(-0.55, 0.35))
        loop = blob(
            rng, spot, patient.width * rng.uniform(0.06, 0.13), 0.7, rng.uniform(0, 3), 0.15
        )
        canvas.fill(loop, _LABEL["bowel"])
        if rng.random() < 0.3:
            canvas.fill(scaled(loop, 0.55), _LABEL["gas"])
    halo = rng.uniform(1.5, 3.5)
    for name, outline in _organs(rng, patient):
        if name == without or (not hard and name != "liver" and rng.random() < 0.06):
            continue
        canvas.fill(scaled(outline, 1.0, grow=halo), _LABEL["fat"])
        canvas.fill(outline, _LABEL[name])
        if name.endswith("kidney"):
            inward = 0.06 * (patient.middle - outline.mean(axis=0))
            canvas.fill(scaled(outline, 0.42) + inward, _LABEL["renal pelvis"])
    if without != "gallbladder" and (hard or rng.random() < 0.7):
        pear = patient.organ(-0.24, -0.06, 0.11, 0.6, 1.0, rough=0.12, taper=0.35)
        canvas.fill(pear, _LABEL["gallbladder"])
    labels = canvas.labels
    labels = np.where(wall == _LABEL["fat"], labels, wall)
    spine = Canvas()
    _paint_spine(patient, spine)
    bone = spine.labels
    labels = np.where((bone > 0) & (wall > 0), bone, labels)
    _add_lesions(rng, labels, patient, hard)
    return Drawing(_render(rng, labels, hard), _masks(labels), (170.0 / patient.width,) * 2)


def _add_lesions(
    rng: np.random.Generator, labels: np.ndarray, patient: _Patient, hard: bool
) -> None:
    liver = labels == _LABEL["liver"]
    if hard or rng.random() < 0.7:
        radius = patient.width * rng.uniform(0.06, 0.14)
        spot = place_in(rng, liver, radius)
        tumour = filled(blob(rng, spot, radius, 0.75, rng.uniform(0, 3), 0.28))
        labels[tumour & liver] = _LABEL["liver tumour"]
    if hard:
        start, end = place_in(rng, liver, 6), place_in(rng, liver, 16)
        course = walk(rng, start, np.arctan2(*(end - start)[::-1]), rng.uniform(50, 80), 0.15)
        vessel = drawn((course, rng.uniform(1.0, 2.6)))
        labels[vessel & liver] = _LABEL["hepatic vessel"]
        fat = labels == _LABEL["fat"]
        spot = place_in(rng, fat, 4)
        node = filled(blob(rng, spot, rng.uniform(1.2, 2.8), 0.8, rng.uniform(0, 3), 0.15))
        labels[node & fat] = _LABEL["lymph node"]


def _render(rng: np.random.Generator, labels: np.ndarray, hard: bool) -> np.ndarray:
    values = np.array([vary(rng, value, spread) for _, value, spread in _TISSUES], np.float32)
    values[_LABEL["left kidney"]] = values[_LABEL["right kidney"]]
    liver = values[_LABEL["liver"]]
    gap = rng.uniform(0.045, 0.075) if hard else rng.uniform(0.12, 0.24)
    values[_LABEL["liver tumour"]] = liver + gap * (1 if rng.random() < 0.25 else -1)
    values[_LABEL["hepatic vessel"]] = liver + rng.uniform(0.1, 0.2)
    field = values.take(labels)
    texture = smooth_noise(rng, int(rng.integers(30, 70)))
    field += texture * np.float32(rng.uniform(0.01, 0.03)) * (labels > 0)
    return grey_image(rng, field, noise=(0.01, 0.07), noise_grain=0.6)


def _masks(labels: np.ndarray) -> dict[str, np.ndarray]:
    def of(*names: str) -> np.ndarray:
        mask: np.ndarray = labels == _LABEL[names[0]]
        for name in names[1:]:
            mask |= labels == _LABEL[name]
        return mask

    masks = {name: of(name) for name in (*_PLAIN, "liver tumour", "hepatic vessel", "lymph node")}
    masks["liver"] = of("liver", "liver tumour", "hepatic vessel")
    middle = labels.shape[1] // 2
    pelvis = of("renal pelvis")
    left_half = np.arange(labels.shape[1]) < middle
    masks["right kidney"] = of("right kidney") | (pelvis & left_half)
    masks["left kidney"] = of("left kidney") | (pelvis & ~left_half)
    masks["kidneys"] = masks["right kidney"] | masks["left kidney"]
    masks["body"] = labels > 0
    return masks


_PLAIN = (
    "stomach", "spleen", "pancreas", "gallbladder", "inferior vena cava", "aorta", "vertebra",
)  # fmt: skip

ABDOMEN = Scene(
    name="abdomen",
    modality="CT",
    view="abdomen CT",
    structures=("body", "liver", "right kidney", "left kidney", *_PLAIN, "liver tumour"),
    hard={
        "low_contrast": "liver tumour",
        "thin": "hepatic vessel",
        "two_part": "kidneys",
        "tiny": "lymph node",
    },
    optional=("spleen", "stomach", "pancreas", "gallbladder"),
    draw=_draw,
)
