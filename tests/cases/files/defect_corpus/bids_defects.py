"""Defects of BIDS datasets; those of volumes as such are in `nifti_defects`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from volume_writing import lungs, piece, save

from defect_corpus import Expected, defect

IMAGE = "sub-01/anat/sub-01_T1w.nii.gz"
LABEL = "derivatives/manual/sub-01/anat/sub-01_desc-lungs_dseg.nii.gz"
OTHER = "derivatives/manual/sub-02/anat/sub-02_desc-lungs_dseg.nii.gz"
TABLE = "derivatives/manual/dseg.tsv"


def write(root: Path) -> None:
    """Two subjects with an image and labels of two lungs on one slice each."""
    image, labels = piece(slice(16, 17), 2)
    for name in (IMAGE, LABEL):
        other = name.replace("sub-01", "sub-02")
        save(root / name, image if name == IMAGE else lungs(labels))
        save(root / other, image if name == IMAGE else lungs(labels))
    (root / TABLE).write_text("index\tname\n1\tright lung\n2\tleft lung\n")


def changed(
    name: str, change: Callable[[Path], object], path: str, cause: str, healthy: int, **other: Any
) -> None:
    """Register a defect that is made of a sound dataset of four cases."""

    def make(root: Path) -> Expected:
        write(root)
        change(root)
        return Expected(path, cause, healthy, **other)

    defect("bids", name)(make)


def table(text: str) -> Callable[[Path], object]:
    return lambda root: (root / LABEL.replace(".nii.gz", ".tsv")).write_text(text)


def nothing(root: Path) -> None:
    """Leave the dataset as it is; an option makes the defect."""


def labels_of(array: np.ndarray) -> Callable[[Path], object]:
    return lambda root: save(root / LABEL, array)


def second_image(root: Path) -> None:
    save(root / "sub-01/anat/sub-01_T2w.nii.gz", piece(slice(16, 17), 2)[0])


def cut(root: Path) -> None:
    (root / LABEL).write_bytes((root / LABEL).read_bytes()[:90])


def probabilities(root: Path) -> None:
    half = np.full(piece(slice(16, 17), 2)[0].shape, 0.5, np.float32)
    save(root / LABEL.replace("dseg", "probseg"), half)


OWN = LABEL.replace(".nii.gz", ".tsv")
changed("image-missing", lambda r: (r / IMAGE).unlink(), LABEL, "no image belongs to these lab", 2)
changed("two-images", second_image, LABEL, "2 images could belong .*image=WORD", 2)
changed("probabilities", probabilities, LABEL.replace("dseg", "probseg"), "threshold", 4, note=True)
changed("table-without-a-value", table("index\tname\n1\tlung\n"), LABEL, "does not name it", 3)
changed("table-of-words", table("index\tname\none\tlung\n"), OWN, "a whole number and a name", 2)
changed("table-name-twice", table("index\tname\n1\tx\n2\tx\n"), OWN, "appears twice", 2)
changed("labels-fractions", labels_of(lungs(piece(slice(16, 17), 2)[1]) * 0.4), LABEL, "0.4", 2)
changed(
    "labels-smaller", labels_of(lungs(piece(slice(16, 17), 4)[1])), LABEL, "grid|shape|voxel", 2
)
changed(
    "labels-cut", lambda r: (r / LABEL).write_bytes((r / LABEL).read_bytes()[:90]), LABEL, ".", 2
)
changed("labels-empty", lambda r: (r / LABEL).write_bytes(b""), LABEL, "empty \\(0 bytes\\)", 2)
changed(
    "other-pipeline",
    lambda r: save(r / LABEL.replace("manual", "auto"), lungs(piece(slice(16, 17), 2)[1])),
    LABEL.replace("manual", "auto"),
    "labels of other pipelines or entities",
    4,
    note=True,
    options="?pipeline=manual",
)
