"""What every request passes before anything reads it: who asks, how much, how slowly.

Plain ASGI, so that an upload without a key, or one that is too large or too slow, is turned away
before a handler sees any of it.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio

from medseg_gym.backbones.finite import NonFiniteError
from medseg_gym.backbones.remote.ends import MissingImages
from medseg_gym.errors import EpisodeError, MedSegError
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.middleware.api_keys import ApiKeys, is_loopback
from medseg_gym.serving.middleware.limits import Limits
from medseg_gym.serving.middleware.metrics import ServiceMetrics
from medseg_gym.serving.middleware.pixel_budget import PixelBudget

log = logging.getLogger("medseg_gym.serving")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

# The page's files hold nothing secret; it asks people for a key and sends it with what it asks.
OPEN_PATHS = (
    "/health", "/ready", "/docs", "/redoc", "/openapi.json", "/static-offline-docs", "/page/",
)  # fmt: skip
_ALWAYS = ("/health", "/ready", "/metrics")  # answered however full the service is
# Who takes files or rows; every other body is a form or the page's JSON, and short.
_LARGE_BODIES = (
    "/v1/encode", "/v1/decode", "/predict", "/predict_with_state", "/session/create", "/api/images",
)  # fmt: skip
_LONGEST_DETAIL = 2000  # characters of an error's text


class RequestMiddleware:
    """ASGI middleware around the whole application.

    Args:
        app: The application.
        owners: Who may ask.
        limits: Bodies, time and requests in progress.
        meters: What is counted.
        local_only: The service is bound to the loopback and has no keys: requests that carry a
            foreign Host or Origin header are refused, so that no web page that the user happens to
            visit can use it.
    """

    def __init__(
        self,
        app: App,
        owners: ApiKeys,
        limits: Limits,
        meters: ServiceMetrics,
        local_only: bool = False,
    ) -> None:
        self.app = app
        self.owners = owners
        self.limits = limits
        self.meters = meters
        self.local_only = local_only
        self.pixels = PixelBudget(limits, meters)
        self._requests = 0
        self._bytes = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        passage = _Passage(self, scope, receive, send)
        self._requests += 1
        self.meters.in_flight.inc()
        try:
            await passage.run()
        finally:
            self._requests -= 1
            self._bytes -= passage.received
            passage.pixels.release()
            self.meters.in_flight.dec()
            passage.report()

    def refusal(
        self, scope: MutableMapping[str, Any], headers: dict[str, str]
    ) -> ServiceError | None:
        """Why a request is turned away before its body is read, or None."""
        path = scope["path"]
        if self.local_only and (foreign := _foreign(headers)):
            return ServiceError(
                f"the {foreign} header does not name this machine: without keys the service "
                "answers local programs only",
                403,
            )
        scope.setdefault("state", {})["owner"] = self.owners.recognise(headers.get("authorization"))
        if scope["state"]["owner"] is None and path != "/" and not path.startswith(OPEN_PATHS):
            return ServiceError("a key is needed: send Authorization: Bearer KEY", 401)
        if self._requests > self.limits.max_requests and path not in _ALWAYS:
            self.meters.refused.labels("requests").inc()
            return ServiceError(
                f"{self.limits.max_requests} requests are in progress, which is the limit",
                503,
                retry_after=1,
            )
        length = headers.get("content-length", "0")
        most = self.most_bytes(path, headers.get("content-type", ""))
        # Nobody sends a number of more than 18 digits in earnest, and reading one takes long.
        if length.isdecimal() and (len(length) > 18 or int(length) > most):
            return too_large(most)
        return None

    def most_bytes(self, path: str, content_type: str) -> int:
        """How many bytes of a body are read."""
        form = content_type.strip().lower().startswith("application/x-www-form-urlencoded")
        if path.endswith(_LARGE_BODIES) and not form:
            return self.limits.max_upload_bytes
        return min(self.limits.max_form_bytes, self.limits.max_upload_bytes)

    def count_bytes(self, count: int) -> None:
        """Add to the bodies in progress.

        Raises:
            ServiceError: Together they are more than may be held.
        """
        self._bytes += count
        if self._bytes > self.limits.max_bytes_in_flight:
            self.meters.refused.labels("bytes_in_flight").inc()
            raise ServiceError("too many uploads at once; try again shortly", 503, retry_after=1)


class _Passage:
    """One request's way through the gate."""

    def __init__(
        self, gate: RequestMiddleware, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        self.gate, self.scope, self._receive, self._send = gate, scope, receive, send
        self.id = secrets.token_hex(8)
        self.received = 0
        self.most = 0  # bytes of the body that are read
        self.pixels = gate.pixels.allowance()
        self.status = 0
        self.complete = False  # the whole body is here
        self.gone = False  # the client closed the connection, or would not read its answer
        self.began = time.perf_counter()
        self.deadline = time.monotonic() + gate.limits.body_seconds
        self.refused: ServiceError | None = None

    async def run(self) -> None:
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in self.scope["headers"]
        }
        self.scope.setdefault("state", {}).update(request_id=self.id, pixels=self.pixels)
        self.most = self.gate.most_bytes(self.scope["path"], headers.get("content-type", ""))
        try:
            self.refused = self.gate.refusal(self.scope, headers)
            if self.refused is None:
                await self.gate.app(self.scope, self.receive, self.send)
        except Exception as error:
            if self.refused is None and not self.gone:
                await self._answer(error)
        # A parser in between may have made something else of what `receive` raised.
        if self.refused is not None and not self.gone and not self.status:
            await self._answer(self.refused)

    async def receive(self) -> Message:
        if self.complete:
            return await self._receive()  # nothing but the disconnect is still to come
        message: Message | None = None
        with anyio.move_on_after(max(self.deadline - time.monotonic(), 0.001)):
            message = await self._receive()
        try:
            if message is None:
                raise ServiceError(
                    f"the body did not arrive within {self.gate.limits.body_seconds:g} s", 408
                )
            if message["type"] == "http.disconnect":
                self.gone = True
                raise ServiceError("the client closed the connection within its request", 400)
            count = len(message.get("body", b""))
            self.received += count
            self.gate.count_bytes(count)
            if self.received > self.most:
                raise too_large(self.most)
        except ServiceError as error:
            self.refused = error
            raise
        self.complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if self.refused is None:  # else the refusal is the answer
            await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        if self.gone:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = message.get("headers", [])
            extra = [(b"x-request-id", self.id.encode()), (b"cache-control", b"no-store")]
            names = {name.lower() for name, _ in given}
            extra += [(name, value) for name, value in _FOR_BROWSERS if name not in names]
            if self.refused is not None and not self.complete:
                # The rest of the body is not read: the connection cannot be used again.
                extra.append((b"connection", b"close"))
            message = {**message, "headers": [*given, *extra]}
        sent = False
        with anyio.move_on_after(self.gate.limits.send_seconds):
            await self._send(message)
            sent = True
        if not sent:
            self.gone = True
            log.warning("answer not read", extra={"request": self.id})
            raise ServiceError("the client did not read its answer")

    async def _answer(self, error: Exception) -> None:
        status, body, headers = describe(error, self.id)
        if self.status:  # answered already, by `serving.app`'s handler for the unexpected
            return
        if status == 500:
            log.error("failed", exc_info=error, extra={"request": self.id, "route": self.route})
        content = json.dumps(body).encode()
        headers += [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
        ]
        try:
            start = {"type": "http.response.start", "status": status, "headers": headers}
            await self._pass_on(start)
            await self._pass_on({"type": "http.response.body", "body": content})
        except ServiceError:
            pass  # it does not read this either

    @property
    def route(self) -> str:
        """Template of the route: paths hold session ids, which are secrets."""
        return getattr(self.scope.get("route"), "path", "other")

    def report(self) -> None:
        seconds = time.perf_counter() - self.began
        method = self.scope["method"] if self.scope["method"] in _METHODS else "other"
        meters = self.gate.meters
        meters.requests.labels(method, self.route, str(self.status or 499)).inc()
        meters.request_seconds.labels(self.route).observe(seconds)
        log.info(
            "request",
            extra={
                "request": self.id,
                "owner": self.scope.get("state", {}).get("owner"),
                "method": method,
                "route": self.route,
                "status": self.status or 499,
                "ms": round(seconds * 1000, 1),
                "bytes_in": self.received,
            },
        )


# No other site's page may embed an answer, error or not, nor guess another type into it.
_FOR_BROWSERS = (
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def too_large(most: int) -> ServiceError:
    """The body has more bytes than are read."""
    return ServiceError(f"the body is larger than the {most} bytes that are read", 413)


def describe(error: Exception, request: str) -> tuple[int, dict[str, Any], list]:
    """Status, JSON body and headers of an answer to an error.

    Only the suite's own errors speak, and not for long, for they may repeat what was sent; anything
    else is a fault of the service, whose cause is in its log under the request's id.
    """
    words = str(error)[:_LONGEST_DETAIL]
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(error, MissingImages):
        return 404, {"detail": words, "missing": list(error.keys)}, headers
    if isinstance(error, NonFiniteError):  # the backbone's fault, and the same when asked again
        ill = {"backbone": error.backbone, "what": error.what}
        rows = {"rows": list(error.rows), "names": list(error.names)}
        return 500, {"detail": words, "not_finite": ill | rows}, headers
    if isinstance(error, ServiceError):
        if error.retry_after is not None:
            headers.append((b"retry-after", str(math.ceil(error.retry_after)).encode()))
        if error.status == 401:
            headers.append((b"www-authenticate", b'Bearer realm="medseg", charset="UTF-8"'))
        return error.status, {"detail": words}, headers
    if isinstance(error, EpisodeError):
        return 409, {"detail": words}, headers
    if isinstance(error, MedSegError):
        return 422, {"detail": words}, headers
    text = f"the service failed; its log tells the cause under request {request}"
    return 500, {"detail": text}, headers


def _foreign(headers: dict[str, str]) -> str:
    """Name of the header that does not name this machine, else ""."""
    host = headers.get("host", "")
    if host and not is_loopback(_host_of(host)):
        return "Host"
    origin = headers.get("origin", "")
    if origin and origin.partition("://")[2] != host:
        return "Origin"
    return ""


def _host_of(authority: str) -> str:
    if authority.startswith("["):
        return authority.partition("]")[0][1:]
    return authority.partition(":")[0]
