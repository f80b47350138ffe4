"""Everything is bounded, and whoever runs into a bound is told when to come back."""

from __future__ import annotations

import json
import socket
import struct
import time
import zlib

import pytest

from medseg_gym.backbones import EllipseBackbone
from medseg_gym.cli.serve import read_limits
from medseg_gym.errors import MedSegError
from medseg_gym.serving.limits import Limits
from tests.serving.conftest import noise, upload


def create(client, image=None, **fields):
    files = upload(noise() if image is None else image)
    return client.post("/session/create", files=files, data=fields)


def connect(client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=20)


def request_text(client, body: bytes, length: int) -> bytes:
    return (
        f"POST /v1/encode HTTP/1.1\r\nHost: {client.base_url.host}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    ).encode() + body


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def test_large_bodies_are_refused_announced_or_not(serve) -> None:
    _, client = serve(max_upload_bytes=20_000)
    image = noise(0, 100, 100)
    assert create(client, image).status_code == 413
    chunks = (b"x" * 1000 for _ in range(30))
    answer = client.post("/v1/encode", content=chunks, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413 and "20000 bytes" in answer.json()["detail"]
    assert create(client).status_code == 200


def test_pixels_are_counted_before_any_is_decoded(serve) -> None:
    _, client = serve(max_pixels=10_000)
    assert create(client, noise(0, 100, 101)).status_code == 422
    # A file of a few bytes that announces 60000 x 60000 pixels.
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99))
    answer = client.post("/session/create", files={"image": ("b.png", bomb, "image/png")})
    assert answer.status_code == 422
    sized = {"images": [{"pixels": "AAAA", "size": [100_000, 100_000]}]}
    assert "10000 are taken" in client.post("/v1/encode", json=sized).json()["detail"]


def test_sessions_are_bounded_in_all_and_per_client(serve) -> None:
    service, client = serve(max_sessions=3, max_sessions_per_client=2)
    first, second = (create(client).json()["session_id"] for _ in range(2))
    answer = create(client)
    assert answer.status_code == 429 and 1 <= int(answer.headers["retry-after"]) <= 60
    assert "2 sessions open" in answer.json()["detail"]
    assert client.delete(f"/session/{first}").status_code == 200
    assert create(client).status_code == 200
    assert len(service.book) == 2 and second

    _, other = serve(max_sessions=1, max_sessions_per_client=2)
    assert create(other).status_code == 200
    answer = create(other)
    assert answer.status_code == 503 and answer.headers["retry-after"]


def test_idle_and_old_sessions_are_closed(serve) -> None:
    service, client = serve(session_idle_seconds=1, max_sessions=1)
    session = create(client).json()["session_id"]
    assert create(client).status_code == 503
    time.sleep(1.1)
    assert client.get(f"/session/{session}/status").status_code == 404
    assert create(client).status_code == 200  # the place is free again, and so is the slot
    assert service.metrics.sessions_closed.labels("expired")._value.get() == 1

    _, client = serve(session_life_seconds=0.5)
    session = create(client).json()["session_id"]
    deadline = time.monotonic() + 20
    while client.get(f"/session/{session}/status").status_code == 200:
        assert time.monotonic() < deadline  # busy all the time, and closed all the same
        time.sleep(0.05)
    assert client.get(f"/session/{session}/status").status_code == 404


def test_memory_of_sessions_is_bounded_and_given_back(serve) -> None:
    # 48 x 64: three bytes a pixel for the image, three for masks; ellipse's logits are 256 x 256.
    step = 48 * 64 + 4 * 256 * 256
    service, client = serve(session_bytes=6 * 48 * 64 * 4 + 3 * step)
    session = create(client).json()["session_id"]
    click = {"session_id": session, "point_x": 5, "point_y": 5}
    codes = [client.post("/session/add_click", data=click).status_code for _ in range(5)]
    assert codes == [200, 200, 200, 503, 503]
    answer = client.post("/session/add_click", data=click)
    assert "MiB" in answer.json()["detail"] and answer.headers["retry-after"]
    assert client.get(f"/session/{session}/status").json()["round_number"] == 3
    client.delete(f"/session/{session}")
    assert service.book._memory.used == 0 and not service.book._memory._images


def test_masks_do_not_keep_their_batch_in_memory(serve) -> None:
    service, client = serve()
    session = create(client).json()["session_id"]
    client.post("/session/add_click", data={"session_id": session, "point_x": 5, "point_y": 5})
    state = service.book.get("loopback", session).episode.state
    assert state.mask.untyped_storage().nbytes() == 48 * 64
    assert state.logits.untyped_storage().nbytes() == 4 * 256 * 256


def test_a_full_queue_says_when_to_come_back(serve) -> None:
    class Slow(EllipseBackbone):
        def decode(self, rows):
            time.sleep(0.2)
            return super().decode(rows)

    service, client = serve(Slow("cpu"), queue_rows=4, max_rows=8)
    image = {"pixels": "AAAA", "size": [1, 1]}
    rows = [{"image": 0, "points": [[0.5, 0.5, True]]}] * 5
    answer = client.post("/v1/decode", json={"images": [image], "rows": rows})
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
    assert "4 is the limit" in answer.json()["detail"]
    assert service.metrics.refused.labels("queue")._value.get() == 1
    too_many = client.post("/v1/decode", json={"images": [image], "rows": rows * 2})
    assert too_many.status_code == 422 and "10 rows" in too_many.json()["detail"]
    assert client.post("/v1/decode", json={"images": [image], "rows": rows[:2]}).status_code == 200


def test_a_half_sent_upload_ends_and_leaves_nothing(serve) -> None:
    service, client = serve(body_seconds=0.5)
    with connect(client) as slow:
        slow.sendall(request_text(client, b'{"hashes"', 1000))
        answer = read_all(slow)  # returns only because the service closes the connection
    assert answer.startswith(b"HTTP/1.1 408") and b"did not arrive within 0.5 s" in answer
    with connect(client) as gone:
        gone.sendall(request_text(client, b'{"hashes"', 1000))
    assert client.get("/health").json()["status"] == "healthy"
    deadline = time.monotonic() + 10
    while service.asgi._requests or service.asgi._bytes:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_header_that_does_not_arrive_costs_no_connection_for_ever(serve) -> None:
    _, client = serve(body_seconds=0.4)
    began = time.monotonic()
    with connect(client) as silent, connect(client) as dribbling:
        dribbling.sendall(b"POST /v1/encode HTTP/1.1\r\nHost: 127.0")
        assert read_all(silent) == b"" and read_all(dribbling) == b""
    assert time.monotonic() - began < 5


def test_a_client_that_reads_nothing_is_cut_off(serve) -> None:
    service, client = serve(send_seconds=0.5, max_rows=256)
    image = {"pixels": "AAAA", "size": [1, 1]}
    rows = [{"image": 0, "points": [[0.5, 0.5, True]]}] * 64  # an answer of 22 MB
    body = json.dumps({"images": [image], "rows": rows}).encode()
    head = request_text(client, body, len(body)).replace(b"encode", b"decode")
    with connect(client) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(head)
        deadline = time.monotonic() + 15
        seen = False
        while time.monotonic() < deadline and (service.asgi._requests or not seen):
            seen = seen or bool(service.asgi._requests)
            time.sleep(0.02)
        assert seen and service.asgi._requests == 0
    assert client.get("/health").status_code == 200


def test_bytes_in_flight_are_bounded(serve) -> None:
    _, client = serve(max_bytes_in_flight=20_000)
    assert create(client).status_code == 200
    answer = create(client, noise(0, 100, 100))
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
    assert create(client).status_code == 200


def test_limits_are_checked_and_read_from_the_command_line() -> None:
    assert Limits(max_delay_ms=0).max_delay_ms == 0
    for name in ("max_batch", "session_bytes", "body_seconds"):
        with pytest.raises(MedSegError, match=name):
            Limits(**{name: 0})
    limits = read_limits(["max_steps=7", "session_idle_seconds=2.5"], max_batch=3)
    assert (limits.max_steps, limits.session_idle_seconds, limits.max_batch) == (7, 2.5, 3)
    for entry, message in (
        ("max_steps", "write NAME=NUMBER"),
        ("max_steps=x", "max_steps cannot be 'x'"),
        ("max_stepz=3", "did you mean 'max_steps'"),
    ):
        with pytest.raises(MedSegError, match=message):
            read_limits([entry])
