"""One case: a box, then five clicks per class, and the scores after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from medseg_agents.evaluation.protocols.interactive_3d.boxes import classes_of
from medseg_agents.evaluation.protocols.interactive_3d.clicks import ClassClicks, next_click
from medseg_agents.evaluation.protocols.interactive_3d.scores import NOTHING, Score, score_labels
from medseg_agents.evaluation.protocols.interactive_3d.segmenter import InteractiveSegmenter3D
from medseg_gym.cases.npz import VolumeBox
from medseg_gym.errors import MedSegError

CLICKS = 5

OnPrediction = Callable[[int, np.ndarray], None]


@dataclass(frozen=True)
class Played:
    """One case after all iterations.

    Args:
        classes: Label values, ascending.
        boxes: One per class, or None.
        clicks: One entry per class.
        scores: Of the box (`NOTHING` without one) and of each click.
        seconds: Of the segmenter in each; 0 where skipped.
    """

    classes: tuple[int, ...]
    boxes: tuple[VolumeBox, ...] | None
    clicks: tuple[ClassClicks, ...]
    scores: tuple[Score, ...]
    seconds: tuple[float, ...]


def play_case(
    segmenter: InteractiveSegmenter3D,
    image: np.ndarray,
    truth: np.ndarray,
    spacing: tuple[float, float, float],
    boxes: Sequence[VolumeBox] | None,
    on_prediction: OnPrediction | None = None,
) -> Played:
    """Play the protocol on one case.

    Args:
        segmenter: The method; it sees neither the truth nor the label values.
        image: (D, H, W) or (D, H, W, 3) uint8.
        truth: (D, H, W) labels.
        spacing: Millimetres between slices, rows and columns.
        boxes: One per class in ascending order of the labels; None skips the box.
        on_prediction: Called with the iteration (0 is the box) and its labels (D, H, W), in the
            values of the truth.

    Raises:
        MedSegError: Not one box a class, or a prediction that is none.
    """
    classes = classes_of(truth)
    if boxes is not None and len(boxes) != len(classes):
        raise MedSegError(f"{len(boxes)} boxes for {len(classes)} classes")
    clicks = tuple(ClassClicks() for _ in classes)
    values = np.array([0, *classes], truth.dtype)
    scores, seconds = [NOTHING], [0.0]
    own: np.ndarray | None = None  # in the segmenter's numbers
    labels = np.zeros_like(truth)
    for iteration in range(CLICKS + 1):
        if iteration == 0:
            if boxes is None:
                continue
            scores, seconds = [], []
        else:
            for value, of_class in zip(classes, clicks, strict=True):
                of_class.add(next_click(truth == value, labels == value))
        start = time.perf_counter()
        result = segmenter.segment(image, spacing, boxes, clicks, own)
        seconds.append(time.perf_counter() - start)
        own = _checked(result, truth.shape, len(classes), segmenter.name)
        labels = values[own]
        scores.append(score_labels(truth, labels, spacing))
        if on_prediction is not None:
            on_prediction(iteration, labels)
    return Played(
        classes, None if boxes is None else tuple(boxes), clicks, tuple(scores), tuple(seconds)
    )


def _checked(labels: np.ndarray, shape: tuple[int, ...], classes: int, name: str) -> np.ndarray:
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        got = labels.dtype if isinstance(labels, np.ndarray) else type(labels).__name__
        raise MedSegError(f"segmenter {name!r} must return whole numbers, got {got}")
    if labels.shape != shape:
        raise MedSegError(f"segmenter {name!r} returned {labels.shape} for a volume of {shape}")
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) <= classes:
        raise MedSegError(
            f"segmenter {name!r} returned labels {labels.min()}..{labels.max()} for {classes} "
            "classes; 0 is background and n the n-th class"
        )
    return labels
