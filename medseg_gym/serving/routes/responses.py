"""Helpers of all routes: JSON bodies, JSON answers, descriptions of refusals, worker threads."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import anyio.to_thread
from fastapi import Form, Request, Response

from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.routes.messages import ErrorAnswer, MissingAnswer

R = TypeVar("R")

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "The body cannot be read"},
    401: {"model": ErrorAnswer, "description": "A key is needed"},
    403: {"model": ErrorAnswer, "description": "Not a local program"},
    408: {"model": ErrorAnswer, "description": "The body took too long"},
    413: {"model": ErrorAnswer, "description": "The body is too large"},
    422: {"model": ErrorAnswer, "description": "Something in it cannot be used"},
    503: {"model": ErrorAnswer, "description": "Full or shutting down; see Retry-After"},
}
CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {"model": ErrorAnswer, "description": "It does not fit what is there"}
}
MISSING: dict[int | str, dict[str, Any]] = {
    404: {"model": MissingAnswer, "description": "Send the pixels of these images"}
}
NOT_JSON: dict[int | str, dict[str, Any]] = {
    415: {"model": ErrorAnswer, "description": "Not application/json"}
}


async def in_thread(work: Callable[..., R], *args: Any) -> R:
    """Run a computation in a thread, away from the event loop."""
    return await anyio.to_thread.run_sync(work, *args)


def json_body(model: str) -> dict[str, Any]:
    """Describe a body that the handler parses itself; `model` is the name of its schema."""
    schema = {"$ref": f"#/components/schemas/{model}"}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}, "required": True}}


async def read_json_body(request: Request) -> bytes:
    """Read the body without parsing it.

    Raises:
        ServiceError: 415.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ServiceError(f"send application/json, not {kind[:100] or 'nothing'}", 415)
    return await request.body()


def reply(answer: bytes | dict[str, Any]) -> Response:
    """Make a JSON answer; the models only describe it, every field is set by hand."""
    content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return Response(content, media_type="application/json")


Window = Annotated[
    str, Form(max_length=40, description="LOW,HIGH for an image of more than 8 bits.")
]
