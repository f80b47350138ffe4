"""Crops of the stardist fluorescence image, with its cell nuclei."""

from __future__ import annotations

import io

import numpy as np

from scripts.samples.origins import STARDIST
from scripts.samples.pack import Pack, group_entry
from scripts.samples.targets import NUCLEI, NUCLEUS
from scripts.samples.windows import grey, percentiles

CROP, CROP_MARGIN = 64, 3  # pixels; windows around a nucleus that is alone in view
QUADRANT = 256  # pixels; windows for all nuclei

NUCLEI_NAME = "img2d"
NUCLEI_NOTES = (
    f"Single nuclei: {CROP} x {CROP} crops in which exactly one labelled nucleus is visible, since "
    "a text cannot say which of many is meant; one crop a nucleus, at a place drawn by a seeded "
    "generator.",
    f"All nuclei: the four {QUADRANT} x {QUADRANT} quadrants.",
    "The pixel size is not given.",
)


def lone_crop(labels: np.ndarray, nucleus: int, rng: np.random.Generator) -> tuple | None:
    """Top left corner of a crop with the whole nucleus and no pixel of another, or None."""
    rows, columns = np.nonzero(labels == nucleus)
    others = np.pad(((labels > 0) & (labels != nucleus)).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    corners = [
        (y, x)
        for y in range(rows.max() + 1 + CROP_MARGIN - CROP, rows.min() - CROP_MARGIN + 1)
        for x in range(columns.max() + 1 + CROP_MARGIN - CROP, columns.min() - CROP_MARGIN + 1)
        if 0 <= y <= labels.shape[0] - CROP
        and 0 <= x <= labels.shape[1] - CROP
        and others[y + CROP, x + CROP] + others[y, x] == others[y, x + CROP] + others[y + CROP, x]
    ]
    return corners[rng.integers(len(corners))] if corners else None


def add_nuclei(pack: Pack, contents: dict[str, bytes]) -> None:
    """Crops of the fluorescence image: nuclei alone in view, and quadrants with all."""
    import tifffile

    image = tifffile.imread(io.BytesIO(contents["stardist/data/images/img2d.tif"]))
    labels = tifffile.imread(io.BytesIO(contents["stardist/data/images/mask2d.tif"]))
    window = percentiles(image)
    pixels = grey(image, window)
    how = f"{window[0]:g}..{window[1]:g} (0.5th..99.5th percentile of the image)"
    pack.groups[NUCLEI_NAME] = group_entry("train", "microscopy", None, STARDIST, how, NUCLEI_NOTES)
    rng = np.random.default_rng(2018)
    for nucleus in np.unique(labels[labels > 0]).tolist():
        corner = lone_crop(labels, nucleus, rng)
        if corner is None:
            continue
        box = (slice(corner[0], corner[0] + CROP), slice(corner[1], corner[1] + CROP))
        key = f"{NUCLEI_NAME}-nucleus{nucleus:03d}"
        image = pack.add_image(key, pixels[box])
        extra = {"slice": None, "crop": [*corner, CROP, CROP], "single_box": True}
        pack.add_case(key, image, labels[box] == nucleus, NUCLEUS, NUCLEI_NAME, **extra)
    for y, x in np.ndindex(2, 2):
        corner = (y * QUADRANT, x * QUADRANT)
        box = (slice(corner[0], corner[0] + QUADRANT), slice(corner[1], corner[1] + QUADRANT))
        key = f"{NUCLEI_NAME}-quadrant{y}{x}"
        image = pack.add_image(key, pixels[box])
        extra = {"slice": None, "crop": [*corner, QUADRANT, QUADRANT], "single_box": False}
        pack.add_case(key, image, labels[box] > 0, NUCLEI, NUCLEI_NAME, **extra)
