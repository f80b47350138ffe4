"""Functions that do requests of many clients in one call; a failing one spoils no other."""

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
    """Do payloads in one call; if that fails, one by one, so that only the faulty ones fail.

    Args:
        work: Function from payloads to results, one each; a result may be an exception.
        payloads: Arguments of the requests.

    Returns:
        One result per payload, or the exception in its place.
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


def decode_together(served: ServedBackbone, requests: list[Rows], max_rows: int) -> list[Any]:
    """Decode the rows of all requests together; a request with missing images stays out.

    Args:
        served: The backbone.
        requests: Rows and images of each request.
        max_rows: Limit of rows in one call.

    Returns:
        Logits (B, h, w) and predicted IoU (B,) per request, or `MissingImages` in their place.
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
    decoded = []
    for start in range(0, len(rows), max_rows):
        chunk = rows[start : start + max_rows]
        given = {row.image: images[row.image] for row in chunk if row.image in images}
        try:
            decoded.append(served.decode(chunk, given))
        except NonFiniteError as error:
            raise error.starting_at(start) from None
    logits, iou = (np.concatenate(arrays) for arrays in zip(*decoded, strict=True))
    return [r if isinstance(r, Exception) else (logits[r], iou[r]) for r in results]
