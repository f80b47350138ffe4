"""Volumes in the radiological view, and which of their slices are kept."""

from __future__ import annotations

import io

import numpy as np
from scipy import ndimage

from scripts.samples.fetching import BuildError

MIN_PIXELS = 20  # a labelled slice with fewer is dropped
MIN_LARGEST = 0.9  # share of the largest piece, for a chest CT target that one box describes


def read_volume(content: bytes) -> tuple[np.ndarray, tuple[float, float]]:
    """Volume (Z, H, W) in radiological axial view, and its (row, column) spacing in mm."""
    import nrrd

    with io.BytesIO(content) as file:
        header = nrrd.read_header(file)
        data = nrrd.read_data(header, file)
    directions = np.asarray(header["space directions"], dtype=float)
    if header["space"] != "left-posterior-superior" or np.any(
        directions != np.diag(np.diag(directions))
    ):
        raise BuildError(f"expected axial LPS axes, got {header['space']} {directions.tolist()}")
    column, row, up = np.diag(directions)  # the file's axes run along left, back, up
    volume = data[:: int(np.sign(column)), :: int(np.sign(row)), :: int(np.sign(up))]
    spacing = (round(abs(float(row)), 6), round(abs(float(column)), 6))
    return np.ascontiguousarray(volume.transpose(2, 1, 0)), spacing


def largest_share(mask: np.ndarray) -> float:
    """Share of the mask's pixels that lie in its largest 8-connected piece."""
    pieces, _ = ndimage.label(mask, np.ones((3, 3)))
    return float(np.bincount(pieces[mask]).max() / mask.sum())
