"""ASGI middleware around all routes: API keys, limits on bodies and time, metrics, access log.

Plain ASGI, so that an upload without a key, or one that is too large or too slow, is turned away
before a handler sees any of it.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

import anyio

from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.limits import Limits
from medseg_gym.serving.metrics import ServiceMetrics
from medseg_gym.serving.middleware.api_keys import ApiKeys
from medseg_gym.serving.middleware.error_answers import error_answer, too_large
from medseg_gym.serving.middleware.local_only import foreign_header
from medseg_gym.serving.middleware.pixel_budget import PixelBudget

log = logging.getLogger("medseg_gym.serving")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

OPEN_PATHS = (
    "/health", "/healthz", "/readyz", "/docs", "/redoc", "/openapi.json", "/static-offline-docs",
)  # fmt: skip
"""Beginnings of the paths that are answered without an API key."""

UPLOAD_PATHS = ("/v1/encode", "/v1/decode", "/predict", "/predict_with_state", "/session/create")
"""Ends of the paths that take files or rows; every other body is a short form or short JSON."""

_ALWAYS = ("/health", "/healthz", "/readyz", "/metrics")  # answered however full the service is


class RequestMiddleware:
    """ASGI middleware around the whole application.

    Args:
        app: The application with all routes.
        api_keys: Keys that requests must carry.
        limits: Bodies, time and requests in progress.
        metrics: Count requests, refusals and time.
        local_only: The service is bound to the loopback and has no keys: requests that carry a
            foreign Host or Origin header are refused, so that no web page that the user happens to
            visit can use it.
        open_paths: Added to `OPEN_PATHS`.
        upload_paths: Added to `UPLOAD_PATHS`.
        origins: Of web pages that may use the service all the same.
    """

    def __init__(
        self,
        app: App,
        api_keys: ApiKeys,
        limits: Limits,
        metrics: ServiceMetrics,
        local_only: bool = False,
        open_paths: Sequence[str] = (),
        upload_paths: Sequence[str] = (),
        origins: Sequence[str] = (),
    ) -> None:
        self.app = app
        self.api_keys = api_keys
        self.limits = limits
        self.metrics = metrics
        self.local_only = local_only
        self._origins = frozenset(origins)
        self._open_paths = (*OPEN_PATHS, *open_paths)
        self._upload_paths = (*UPLOAD_PATHS, *upload_paths)
        self.pixels = PixelBudget(limits, metrics)
        self._requests = 0
        self._bytes = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        context = _RequestContext(self, scope, receive, send)
        self._requests += 1
        self.metrics.in_flight.inc()
        try:
            await context.run()
        finally:
            self._requests -= 1
            self._bytes -= context.received
            context.pixels.release()
            self.metrics.in_flight.dec()
            context.report()

    def refusal(
        self, scope: MutableMapping[str, Any], headers: dict[str, str]
    ) -> ServiceError | None:
        """Return the reason to refuse a request before its body is read, or None."""
        path = scope["path"]
        if self.local_only and (foreign := foreign_header(headers, self._origins)):
            return ServiceError(
                f"the {foreign} header does not name this machine: without keys the service "
                "answers local programs only",
                403,
            )
        owner = self.api_keys.authenticate(headers.get("authorization"))
        scope.setdefault("state", {})["owner"] = owner
        if owner is None and path != "/" and not path.startswith(self._open_paths):
            return ServiceError("a key is needed: send Authorization: Bearer KEY", 401)
        if self._requests > self.limits.max_requests and path not in _ALWAYS:
            self.metrics.refused.labels("requests").inc()
            return ServiceError(
                f"{self.limits.max_requests} requests are in progress, which is the limit",
                503,
                retry_after=1,
            )
        length = headers.get("content-length", "0")
        limit = self.max_body_bytes(path, headers.get("content-type", ""))
        # Nobody sends a number of more than 18 digits in earnest, and reading one takes long.
        if length.isdecimal() and (len(length) > 18 or int(length) > limit):
            return too_large(limit)
        return None

    def max_body_bytes(self, path: str, content_type: str) -> int:
        """Return how many bytes of a body are read."""
        form = content_type.strip().lower().startswith("application/x-www-form-urlencoded")
        if path.endswith(self._upload_paths) and not form:
            return self.limits.max_upload_bytes
        return min(self.limits.max_form_bytes, self.limits.max_upload_bytes)

    def count_bytes(self, count: int) -> None:
        """Add to the bodies in progress.

        Raises:
            ServiceError: Together they are more than may be held.
        """
        self._bytes += count
        if self._bytes > self.limits.max_bytes_in_flight:
            self.metrics.refused.labels("bytes_in_flight").inc()
            raise ServiceError("too many uploads at once; try again shortly", 503, retry_after=1)


class _RequestContext:
    """State of one request on its way through the middleware."""

    def __init__(
        self,
        middleware: RequestMiddleware,
        scope: MutableMapping[str, Any],
        receive: Receive,
        send: Send,
    ) -> None:
        self.middleware, self.scope, self._receive, self._send = middleware, scope, receive, send
        self.id = secrets.token_hex(8)
        self.received = 0
        self.max_bytes = 0  # of the body
        self.pixels = middleware.pixels.allowance()
        self.status = 0
        self.complete = False  # the whole body is here
        self.gone = False  # the client closed the connection, or would not read its answer
        self.began = time.perf_counter()
        self.deadline = time.monotonic() + middleware.limits.body_seconds
        self.refused: ServiceError | None = None

    async def run(self) -> None:
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in self.scope["headers"]
        }
        self.scope.setdefault("state", {}).update(request_id=self.id, pixels=self.pixels)
        self.max_bytes = self.middleware.max_body_bytes(
            self.scope["path"], headers.get("content-type", "")
        )
        try:
            self.refused = self.middleware.refusal(self.scope, headers)
            if self.refused is None:
                await self.middleware.app(self.scope, self.receive, self.send)
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
                    f"the body did not arrive within {self.middleware.limits.body_seconds:g} s", 408
                )
            if message["type"] == "http.disconnect":
                self.gone = True
                raise ServiceError("the client closed the connection within its request", 400)
            count = len(message.get("body", b""))
            self.received += count
            self.middleware.count_bytes(count)
            if self.received > self.max_bytes:
                raise too_large(self.max_bytes)
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
            headers = message.get("headers", [])
            extra = [(b"x-request-id", self.id.encode()), (b"cache-control", b"no-store")]
            names = {name.lower() for name, _ in headers}
            extra += [(name, value) for name, value in _FOR_BROWSERS if name not in names]
            if self.refused is not None and not self.complete:
                # The rest of the body is not read: the connection cannot be used again.
                extra.append((b"connection", b"close"))
            message = {**message, "headers": [*headers, *extra]}
        sent = False
        with anyio.move_on_after(self.middleware.limits.send_seconds):
            await self._send(message)
            sent = True
        if not sent:
            self.gone = True
            log.warning("answer not read", extra={"request": self.id})
            raise ServiceError("the client did not read its answer")

    async def _answer(self, error: Exception) -> None:
        status, body, headers = error_answer(error, self.id)
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
        metrics = self.middleware.metrics
        metrics.requests.labels(method, self.route, str(self.status or 499)).inc()
        metrics.request_seconds.labels(self.route).observe(seconds)
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
