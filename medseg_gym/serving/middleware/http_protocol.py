"""Uvicorn's HTTP protocol with the bounds that uvicorn leaves out: time and size of a header.

Both are checked before anything is kept, let alone a key: what a stranger sends costs no more than
`Limits.max_header_bytes` on each of at most `Limits.max_connections` connections.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from medseg_gym.serving.limits import Limits

_PIPELINED = 32  # requests that a connection may send ahead of their answers


def limited_protocol(limits: Limits, base: Any = AutoHTTPProtocol) -> type:
    """Make uvicorn's HTTP protocol close connections whose headers are too long or too slow.

    uvicorn itself waits for ever for the first byte and for the rest of a header, and httptools
    keeps headers, trailers and the request line however long they are.

    Args:
        limits: `max_header_bytes`, `body_seconds` and `max_connections`.
        base: Protocol class of httptools or h11, both untyped; by default the one that is
            installed. h11 bounds a header itself, see `make_server`.
    """

    class LimitedProtocol(base):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._unread = 0  # bytes since the last that was more than a part of a header
            self._giving_up = None
            if len(self.connections) > limits.max_connections:
                transport.close()
            self._arm()

        def data_received(self, data: bytes) -> None:
            if base.__name__ == "H11Protocol":
                super().data_received(data)
            else:
                self._feed(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._disarm()
            elif self._giving_up is None:
                self._arm()

        def _feed(self, data: bytes) -> None:
            """Give the parser slices, so that it never holds much more than a header may have."""
            view = memoryview(data)
            while view and not self.transport.is_closing():
                piece, view = view[: limits.max_header_bytes], view[limits.max_header_bytes :]
                self._unread += len(piece)
                super().data_received(bytes(piece))
                if self._unread > limits.max_header_bytes and not self.transport.is_closing():
                    self._refuse(431, f"the header has more than {limits.max_header_bytes} bytes")

        # Callbacks of the parser: all but single headers and the request line are progress.
        def on_headers_complete(self) -> None:
            self._unread = 0
            super().on_headers_complete()
            if len(self.pipeline) > _PIPELINED:
                raise ValueError("too many requests ahead of their answers")

        def on_body(self, body: bytes) -> None:
            self._unread = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._unread = 0
            super().on_message_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._disarm()  # uvicorn's own keep-alive time begins

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, msg)

        def _refuse(self, status: int, detail: str) -> None:
            content = json.dumps({"detail": detail})
            self.transport.write(
                (
                    f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
                    f"content-type: application/json\r\ncontent-length: {len(content)}\r\n"
                    "cross-origin-resource-policy: same-origin\r\nconnection: close\r\n\r\n"
                    f"{content}"
                ).encode()
            )
            self.transport.close()

        def _arm(self) -> None:
            self._giving_up = self.loop.call_later(limits.body_seconds, self._give_up)

        def _disarm(self) -> None:
            if self._giving_up is not None:
                self._giving_up.cancel()
                self._giving_up = None

        def _give_up(self) -> None:
            self._giving_up = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return LimitedProtocol
