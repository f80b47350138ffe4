"""Distances between the borders of two masks: HD95, NSD and boundary IoU.

Border pixels are those of a mask with at least one of their four neighbours (six in a volume)
outside it; beyond the image is outside. Distances are Euclidean, from the centre of a border pixel
of one mask to the nearest one of the other. This is what MONAI computes by default
(`compute_hausdorff_distance`, `compute_surface_dice` with `use_subvoxels=False`) and what the tests
compare with. DeepMind's `surface-distance` weighs the pieces of an outline between the pixels by
their length instead, and medpy takes one percentile over both directions together: those numbers
differ a little.

With a spacing everything is in millimetres; without one it is in pixels, and `SurfaceScores.unit`
says which.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from medseg_gym.episodes.metrics.overlap import check_masks

Spacing = tuple[float, ...]
"""Millimetres per pixel (row, column), or per voxel (slice, row, column)."""

NSD_TOLERANCE = 2.0
"""Tolerance of NSD in tables: mm where the spacing is known, else pixels (Ma et al. 2024: 2)."""

BOUNDARY_RATIO = 0.02
"""Width of the band of boundary IoU as a share of the image diagonal (Cheng et al. 2021)."""


class SurfaceScores(NamedTuple):
    """HD95 and NSD of one mask.

    Args:
        hd95: In `unit`; 0 if both masks are empty, inf if one of them is.
        nsd: 0..1.
        unit: "mm", or "px" where no spacing was given.
    """

    hd95: float
    nsd: float
    unit: Literal["mm", "px"]


def surface_scores(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing: Spacing | None = None,
    tolerance: float = NSD_TOLERANCE,
) -> SurfaceScores:
    """HD95 and NSD from one pass of distances; see `hd95` and `nsd`.

    Args:
        prediction: (H, W) or (D, H, W) bool.
        truth: (H, W) or (D, H, W) bool.
        spacing: Millimetres per pixel; None measures in pixels.
        tolerance: Of NSD, in mm or, without a spacing, in pixels.

    Raises:
        ValueError: Masks of different shapes or not bool, a spacing or a tolerance that is not
            finite, a spacing that is not positive, or a negative tolerance.
    """
    if not 0 <= tolerance < np.inf:
        raise ValueError(f"tolerance must not be negative, and finite, got {tolerance}")
    to_truth, to_prediction = _surface_distances(prediction, truth, spacing)
    unit: Literal["mm", "px"] = "px" if spacing is None else "mm"
    if not (to_truth.size or to_prediction.size):
        return SurfaceScores(0.0, 1.0, unit)
    if not (to_truth.size and to_prediction.size):
        return SurfaceScores(float("inf"), 0.0, unit)
    near = np.count_nonzero(to_truth <= tolerance) + np.count_nonzero(to_prediction <= tolerance)
    return SurfaceScores(
        float(max(np.percentile(to_truth, 95), np.percentile(to_prediction, 95))),
        float(near / (to_truth.size + to_prediction.size)),
        unit,
    )


def hd95(prediction: np.ndarray, truth: np.ndarray, spacing: Spacing | None = None) -> float:
    """95 % Hausdorff distance (Huttenlocher et al. 1993), in mm, or in pixels without a spacing.

    max(P95{d(p, ∂T) : p in ∂P}, P95{d(t, ∂P) : t in ∂T}), percentiles interpolated linearly. Two
    empty masks are 0 apart, as in BraTS. From an empty mask to another there is no distance: inf,
    as in surface-distance, where MONAI gives NaN.

    Args:
        prediction: (H, W) or (D, H, W) bool.
        truth: (H, W) or (D, H, W) bool.
        spacing: Millimetres per pixel.

    Raises:
        ValueError: As `surface_scores`.
    """
    return surface_scores(prediction, truth, spacing).hd95


def nsd(
    prediction: np.ndarray,
    truth: np.ndarray,
    tolerance: float = NSD_TOLERANCE,
    spacing: Spacing | None = None,
) -> float:
    """Normalised surface Dice (Nikolov et al. 2018, arXiv 1809.04430; on pixels: 2111.05408).

    (|{p in ∂P : d(p, ∂T) <= tolerance}| + |{t in ∂T : d(t, ∂P) <= tolerance}|) / (|∂P| + |∂T|): the
    share of both borders that an expert would not move. Two empty masks score 1, one empty mask 0.

    Args:
        prediction: (H, W) or (D, H, W) bool.
        truth: (H, W) or (D, H, W) bool.
        tolerance: In mm, or in pixels without a spacing.
        spacing: Millimetres per pixel.

    Raises:
        ValueError: As `surface_scores`.
    """
    return surface_scores(prediction, truth, spacing, tolerance).nsd


def boundary_iou(
    prediction: np.ndarray, truth: np.ndarray, dilation_ratio: float = BOUNDARY_RATIO
) -> float:
    """Boundary IoU (Cheng et al. 2021, arXiv 2103.16562): IoU of P ∩ P_d and T ∩ T_d.

    G ∩ G_d is the band of a mask's own pixels within d of its border, what d erosions by a 3 x 3
    square take away. d is `dilation_ratio` times the image diagonal, rounded, at least 1 pixel. As
    in the authors' code pixels beyond the image are outside, and d ignores spacing. Two empty
    masks score 1, one empty mask 0.

    Args:
        prediction: (H, W) bool.
        truth: (H, W) bool.
        dilation_ratio: d as a share of the image diagonal.

    Raises:
        ValueError: Masks of different shapes or not bool, or a ratio that is not finite or
            negative.
    """
    from scipy import ndimage  # late: it takes half a second, and an episode needs none

    if not 0 <= dilation_ratio < np.inf:
        raise ValueError(f"dilation_ratio must be finite and not negative, got {dilation_ratio}")
    prediction, truth = check_masks(prediction, truth)
    width = max(1, round(dilation_ratio * float(np.hypot(*prediction.shape))))
    bands = []
    for mask in _cropped(prediction, truth):
        depth = ndimage.distance_transform_cdt(mask, metric="chessboard")
        bands.append(mask & (depth <= width))
    union = np.count_nonzero(bands[0] | bands[1])
    return float(np.count_nonzero(bands[0] & bands[1]) / union) if union else 1.0


def _cropped(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both masks where either has a pixel, with a rim of one pixel that is outside."""
    from scipy import ndimage  # late: it takes half a second, and an episode needs none

    box = ndimage.find_objects((prediction | truth).view(np.uint8))
    if not box or box[0] is None:
        empty = np.zeros((1,) * prediction.ndim, bool)
        return empty, empty
    return np.pad(prediction[box[0]], 1), np.pad(truth[box[0]], 1)


def _surface_distances(
    prediction: np.ndarray, truth: np.ndarray, spacing: Spacing | None
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the prediction's border pixels to the truth's border, and the other way round.

    Where the other border does not exist they are inf.
    """
    from scipy import ndimage  # late: it takes half a second, and an episode needs none

    prediction, truth = check_masks(prediction, truth)
    axes = prediction.ndim
    if spacing is not None and not (len(spacing) == axes and all(0 < s < np.inf for s in spacing)):
        which = "two positive numbers (row, column)"
        if axes == 3:
            which = "three positive numbers (slice, row, column)"
        raise ValueError(f"spacing must be {which}, finite ones, got {spacing}")
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in _cropped(prediction, truth)]
    distances = []
    for here, there in (borders, borders[::-1]):
        if there.any():
            distances.append(ndimage.distance_transform_edt(~there, sampling=spacing)[here])
        else:
            distances.append(np.full(np.count_nonzero(here), np.inf))
    return distances[0], distances[1]
