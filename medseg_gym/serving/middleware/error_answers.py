"""Answers to requests that failed: HTTP status, JSON body and headers of every kind of error."""

from __future__ import annotations

import math
from typing import Any

from medseg_gym.backbones.finite import NonFiniteError
from medseg_gym.backbones.remote.ends import MissingImages
from medseg_gym.errors import EpisodeError, MedSegError
from medseg_gym.serving.errors import ServiceError

_MAX_DETAIL = 2000  # characters of an error's text


def too_large(limit: int) -> ServiceError:
    """Make the refusal of a body of more bytes than are read."""
    return ServiceError(f"the body is larger than the {limit} bytes that are read", 413)


def error_answer(
    error: Exception, request: str
) -> tuple[int, dict[str, Any], list[tuple[bytes, bytes]]]:
    """Return the status, JSON body and headers of the answer to an error.

    Only the suite's own errors speak, and not for long, for they may repeat what was sent; anything
    else is a fault of the service, whose cause is in its log under the request's id.
    """
    message = str(error)[:_MAX_DETAIL]
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(error, MissingImages):
        return 404, {"detail": message, "missing": list(error.keys)}, headers
    if isinstance(error, NonFiniteError):  # the backbone's fault, and the same when asked again
        defect = {"backbone": error.backbone, "what": error.what}
        rows = {"rows": list(error.rows), "names": list(error.names)}
        return 500, {"detail": message, "not_finite": defect | rows}, headers
    if isinstance(error, ServiceError):
        if error.retry_after is not None:
            headers.append((b"retry-after", str(math.ceil(error.retry_after)).encode()))
        if error.status == 401:
            headers.append((b"www-authenticate", b'Bearer realm="medseg", charset="UTF-8"'))
        return error.status, {"detail": message}, headers
    if isinstance(error, EpisodeError):
        return 409, {"detail": message}, headers
    if isinstance(error, MedSegError):
        return 422, {"detail": message}, headers
    text = f"the service failed; its log tells the cause under request {request}"
    return 500, {"detail": text}, headers
