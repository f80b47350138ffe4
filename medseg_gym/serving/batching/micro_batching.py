"""Requests of many clients done in one call, none at another's expense."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from medseg_gym.backbones.finite import NonFiniteError
from medseg_gym.backbones.remote.ends import MissingImages, ServedBackbone
from medseg_gym.backbones.remote.wire import WireRow

P = TypeVar("P")

Images = Mapping[str, np.ndarray]
Rows = tuple[Sequence[WireRow], Images]


def together(work: Callable[[list[P]], list[Any]], payloads: list[P]) -> list[Any]:
    """Do payloads in one call; if that fails, one by one, so that only a culprit fails.

    Args:
        work: From payloads to results, one each; a result may be an exception.
        payloads: What is to be done.

    Returns:
        One result, or the exception that stands in its place, per payload.
    """
    if not payloads:
        return []
    try:
        return work(payloads)
    except Exception as error:
        if len(payloads) == 1:
            return [error]
        return [together(work, [payload])[0] for payload in payloads]


def encode_together(served: ServedBackbone, requests: list[Images]) -> list[Any]:
    """Encode the images of all requests in one call, each distinct one once."""
    union = {key: image for images in requests for key, image in images.items()}
    sizes = served.encode(union)
    return [{key: sizes[key] for key in images} for images in requests]


def decode_together(served: ServedBackbone, requests: list[Rows], most: int) -> list[Any]:
    """Decode the rows of all requests together; a request with missing images stays out.

    Args:
        served: Who decodes.
        requests: Rows and images of each.
        most: Rows in one call.
    """
    results: list[Any] = []
    rows: list[WireRow] = []
    images: dict[str, np.ndarray] = {}
    for wanted, given in requests:
        keys = sorted({row.image for row in wanted} - set(given))
        missing = sorted(set(keys) - set(served.known(keys)))
        if missing:
            results.append(MissingImages(missing))
            continue
        results.append(slice(len(rows), len(rows) + len(wanted)))
        rows += wanted
        images |= given
    if not rows:
        return results
    parts = []
    for start in range(0, len(rows), most):
        part = rows[start : start + most]
        given = {row.image: images[row.image] for row in part if row.image in images}
        try:
            parts.append(served.decode(part, given))
        except NonFiniteError as error:
            raise error.starting_at(start) from None
    logits, iou = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return [r if isinstance(r, Exception) else (logits[r], iou[r]) for r in results]
