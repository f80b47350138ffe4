"""Requests of a stranger or a greedy client cost little: headers, errors, pixels and work."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time

import httpx
import psutil
import pytest
from PIL import Image

from medseg_gym.backbones import EllipseBackbone
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.limits import Limits
from medseg_gym.serving.middleware.api_keys import ApiKeys
from medseg_gym.serving.middleware.http_protocol import limited_protocol
from medseg_gym.serving.middleware.pixel_budget import PixelBudget
from tests.serving.conftest import noise, upload
from tests.serving.test_limits import connect, read_all
from tests.serving.test_process import Process

JSON = {"Content-Type": "application/json"}
PIXEL = {"pixels": "AAAA", "size": [1, 1]}


def blank_png(side: int) -> str:
    """Base64 of a picture that takes little on the way and `side * side * 3` bytes decoded."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side)).save(buffer, "PNG", compress_level=9)
    return base64.b64encode(buffer.getvalue()).decode()


def send(client, *parts: bytes) -> bytes:
    """Bytes that a connection answers until it is closed; a reset counts as an end."""
    with connect(client) as connection:
        try:
            for part in parts:
                connection.sendall(part)
            return read_all(connection)
        except (ConnectionResetError, BrokenPipeError):
            return b""


# headers ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["auto", "h11"])
@pytest.mark.parametrize(
    "parts",
    [
        [b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ", *[b"x" * 10_000] * 30],
        [b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n", *[b"X: y\r\n" * 2000] * 30],
        [b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n", *[b"x" * 10_000] * 30],
        [b"GET /", *[b"x" * 10_000] * 30],
        [b"\r\n" * 5000] * 30,
        [
            b"POST /v1/encode HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n",
            *[b"X: y\r\n" * 2000] * 30,
        ],
    ],
    ids=["one value", "many", "one name", "request line", "blank lines", "trailers"],
)
def test_headers_are_cut_off_before_they_are_kept(serve, monkeypatch, kind, parts) -> None:
    if kind == "h11":
        from uvicorn.protocols.http.h11_impl import H11Protocol

        monkeypatch.setattr(
            "medseg_gym.serving.server.limited_protocol",
            lambda limits: limited_protocol(limits, H11Protocol),
        )
    service, client = serve(max_header_bytes=16_384)
    kept = 0
    if kind == "auto":
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

        def count(self, name, value):
            nonlocal kept
            kept += len(name) + len(value)
            return real(self, name, value)

        real = HttpToolsProtocol.on_header
        monkeypatch.setattr(HttpToolsProtocol, "on_header", count)
    answer = send(client, *parts)
    if answer and b" 200 " not in answer[:20]:  # an encode may be answered before its trailers
        assert answer[:13] in (b"HTTP/1.1 431 ", b"HTTP/1.1 400 ", b"HTTP/1.1 422 "), answer[:200]
        assert b"cross-origin-resource-policy: same-origin" in answer.lower()
    assert kept <= 3 * 16_384
    assert client.get("/health").status_code == 200
    deadline = time.monotonic() + 10
    while service.asgi._requests:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_headers_of_a_usual_size_pass(serve) -> None:
    _, client = serve()
    assert client.get("/health", headers={"X-Long": "x" * 20_000}).status_code == 200
    for _ in range(3):  # counted anew for every request of a connection
        body = json.dumps({"images": [], "hashes": []}).encode() + b" " * 200_000
        answer = client.post("/v1/encode", content=iter([body[:7], body[7:]]), headers=JSON)
        assert answer.status_code == 200, answer.text


def test_requests_ahead_of_their_answers_are_bounded(serve) -> None:
    _, client = serve()
    one = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    assert send(client, one * 3000).count(b"HTTP/1.1 200") < 100
    with connect(client) as connection:
        connection.sendall(one * 20)
        connection.shutdown(socket.SHUT_WR)
        time.sleep(0.5)
    assert client.get("/health").status_code == 200


def test_connections_are_bounded(serve) -> None:
    _, client = serve(max_connections=4, body_seconds=20)
    held = [connect(client) for _ in range(8)]
    time.sleep(0.3)
    closed = 0
    for connection in held:
        connection.settimeout(0.2)
        try:
            closed += connection.recv(1) == b""
        except TimeoutError:
            pass
        connection.close()
    assert closed == 4
    time.sleep(0.3)
    assert client.get("/health").status_code == 200


# errors -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "body",
    [
        b'{"rows": [' + b"1," * 100_000 + b"1]}",
        b'{"rows": [' + b"1," * 900_000 + b"1]}",
        b'{"hashes": [' + b'"x",' * 100_000 + b'"x"]}',
        b"{" + b",".join(b'"k%d": 1' % i for i in range(100_000)) + b"}",
        b"{" + b",".join(b'"k%d": 1' % i for i in range(50)) + b"}",
        b'{"' + b"k" * 2_000_000 + b'": 1}',
        b'{"backbone": "' + b"b" * 2_000_000 + b'", "rows": [{"image": 0}]}',
        b'{"rows": [{"image": "' + b"z" * 2_000_000 + b'"}]}',
        b"[" * 200_000,
        b'{"rows": ' + b"\xff" * 1_000_000,
    ],
    ids=["faults", "values", "hashes", "names", "few names", "name", "backbone", "hash", "deep",
         "bytes"],
)  # fmt: skip
def test_an_error_is_short_whatever_was_sent(serve, body) -> None:
    _, client = serve()
    pauses = []

    def watch() -> None:
        with httpx.Client(base_url=client.base_url, trust_env=False, timeout=30) as other:
            while True:  # once at least: an answer may come before the thread runs
                began = time.monotonic()
                other.get("/health")
                pauses.append(time.monotonic() - began)
                if done.is_set():
                    return

    done = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for path in ("/v1/decode", "/v1/encode"):
            answer = client.post(path, content=body, headers=JSON)
            assert answer.status_code in (409, 413, 422), answer.text[:300]
            assert len(answer.content) < 10_000
    finally:
        done.set()
        watcher.join()
    assert max(pauses) < 3


def test_forms_and_the_pages_bodies_are_short(serve) -> None:
    _, client = serve()
    for path in ("/session/add_click", "/session/segment", "/predict", "/session/create"):
        answer = client.post(
            path,
            content=b"a&" * 100_000,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        assert answer.status_code == 413, path
    answer = client.post("/session/add_click", data={"session_id": "x" * 50_000})
    assert answer.status_code == 422 and len(answer.content) < 2000
    fields = {f"field{i}": (None, "x") for i in range(900)}
    answer = client.post("/predict", files=fields)
    assert answer.status_code == 422 and len(answer.content) < 10_000


def test_every_answer_says_that_it_is_for_this_site_alone(serve) -> None:
    _, client = serve(api_keys=ApiKeys({"anna": "anna-key-0123456789"}))
    key = {"Authorization": "Bearer anna-key-0123456789"}
    asked = [
        ("GET", "/health", {}), ("GET", "/readyz", {}), ("GET", "/", {}), ("GET", "/docs", {}),
        ("GET", "/openapi.json", {}), ("GET", "/v1/backbone", {"headers": key}),
        ("GET", "/metrics", {"headers": key}), ("GET", "/sessions", {}),
        ("GET", "/nothing", {"headers": key}), ("PUT", "/v1/encode", {"headers": key}),
        ("POST", "/v1/decode", {"headers": {**key, **JSON}, "content": b"{"}),
        ("POST", "/session/add_click", {"headers": key, "data": {"a": "b" * 70_000}}),
        ("OPTIONS", "/v1/decode", {"headers": {**key, "Origin": "http://evil.example"}}),
    ]  # fmt: skip
    for method, path, extra in asked:
        answer = client.request(method, path, **extra)
        policy = answer.headers.get_list("cross-origin-resource-policy")
        assert policy == ["same-origin"], (method, path, answer.status_code)
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    bad = send(client, b"nonsense\r\n\r\n")
    assert b"cross-origin-resource-policy: same-origin" in bad


# pixels -------------------------------------------------------------------------------------------
def test_pixels_of_a_request_are_counted_in_sum(serve) -> None:
    _, client = serve(max_request_pixels=50_000)
    three = [{"picture": blank_png(side)} for side in (100, 101, 190)]
    answer = client.post("/v1/encode", json={"images": three})
    assert answer.status_code == 422 and "50000 are taken at once" in answer.json()["detail"]
    assert client.post("/v1/encode", json={"images": three[:2]}).status_code == 200
    raw = {"pixels": base64.b64encode(bytes(3 * 40_000)).decode(), "size": [200, 200]}
    answer = client.post("/v1/encode", json={"images": [raw, {"picture": blank_png(120)}]})
    assert answer.status_code == 422


def test_pixels_in_flight_are_counted_and_given_back(serve) -> None:
    class Slow(EllipseBackbone):
        def encode(self, images):
            time.sleep(0.4 if len(images) == 1 else 0)
            return super().encode(images)

    service, client = serve(Slow("cpu"), max_pixels_in_flight=50_000)
    answers: list[httpx.Response] = []

    def ask(seed: int) -> None:
        with httpx.Client(base_url=client.base_url, trust_env=False, timeout=30) as one:
            files = upload(noise(seed, 200, 200))
            answers.append(one.post("/session/create", files=files))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    codes = sorted(answer.status_code for answer in answers)
    assert codes[0] == 200 and codes[-1] == 503
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.headers["retry-after"] == "1" and "at once" in refused.json()["detail"]
    ask(9)
    assert answers[-1].status_code == 200  # one alone is never refused
    assert service.asgi.pixels.held == 0


def test_what_is_held_is_given_back_once() -> None:
    budget = PixelBudget(Limits(max_pixels=100, max_request_pixels=150, max_pixels_in_flight=160))
    first, second = budget.allowance(), budget.allowance()
    first.take(10, 10)
    with pytest.raises(ServiceError, match="10 x 11 pixels"):
        first.take(10, 11)
    with pytest.raises(ServiceError, match="taken at once"):
        first.take(6, 10)
    first.take_values(1000)  # its own alone never refuse a request
    with pytest.raises(ServiceError, match="try again shortly"):
        second.take(10, 10)
    first.release()
    first.release()
    second.take(10, 10)
    second.release()
    assert budget.held == 0


# work ---------------------------------------------------------------------------------------------
def test_work_of_one_request_is_bounded(serve) -> None:
    _, client = serve()
    many = [[0.5, 0.5, True]] * 256
    rows = [{"image": 0, "points": many[:1]}] * 200 + [{"image": 0, "points": many}]
    answer = client.post("/v1/decode", json={"images": [PIXEL], "rows": rows})
    assert answer.status_code == 422 and "too much work" in answer.json()["detail"]
    answer = client.post("/v1/decode", json={"images": [PIXEL], "rows": rows[-1:]})
    assert answer.status_code == 200


@pytest.mark.slow
def test_a_large_request_lets_others_in_between(serve) -> None:
    sizes = []

    class Slow(EllipseBackbone):
        def decode(self, rows):
            sizes.append(len(rows))
            time.sleep(0.05)
            return super().decode(rows)

    _, client = serve(Slow("cpu"), max_batch=4)
    point = {"image": 0, "points": [[0.5, 0.5, True]]}
    boxes = [{"image": 0, "box": [0.1, 0.1, 0.2 + i / 100, 0.9]} for i in range(64)]
    whole: list[httpx.Response] = []

    def ask() -> None:
        body = {"images": [PIXEL], "rows": boxes}
        whole.append(httpx.post(f"{client.base_url}/v1/decode", json=body, timeout=60))

    sizes.clear()
    thread = threading.Thread(target=ask)
    thread.start()
    while len(sizes) < 2:
        time.sleep(0.005)
    began = time.monotonic()
    assert client.post("/v1/decode", json={"images": [PIXEL], "rows": [point]}).status_code == 200
    assert time.monotonic() - began < 0.4 and not whole
    thread.join()
    assert max(sizes) <= 4
    parts = [
        client.post("/v1/decode", json={"images": [PIXEL], "rows": [row]}).json() for row in boxes
    ]
    expected = b"".join(base64.b64decode(part["logits"]) for part in parts)
    assert base64.b64decode(whole[0].json()["logits"]) == expected


# a process ----------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_memory_of_a_process_stays_bounded() -> None:
    process = Process("--backbone", "ellipse", "--no-page")
    try:
        watched = psutil.Process(process.popen.pid)
        client = httpx.Client(base_url=process.url, timeout=60, trust_env=False)
        client.post("/v1/encode", json={"images": [{"picture": blank_png(64)}]})
        before = watched.memory_info().rss
        peak = before
        done = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.01):
                peak = max(peak, watched.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        floods = []
        for _ in range(16):  # headers without an end, 64 MB in all
            connection = connect(client)
            floods.append(connection)
            try:
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n")
                for _ in range(4):
                    connection.sendall(b"X-Many: y\r\n" * 90_000)
            except OSError:
                pass
        for connection in floods:
            connection.close()
        headers = peak
        faults = b'{"rows": [' + b"1," * 1_500_000 + b"1]}"
        for _ in range(3):
            answer = client.post("/v1/decode", content=faults, headers=JSON)
            assert answer.status_code == 413 and len(answer.content) < 1000
        errors = peak
        picture = blank_png(4096)  # a few kilobytes, 50 MB decoded
        body = json.dumps({"images": [{"picture": picture}] * 64}).encode()
        answer = client.post("/v1/encode", content=body, headers=JSON)
        assert answer.status_code == 422 and "at once" in answer.json()["detail"]
        done.set()
        watcher.join()
        client.close()
        mega = 1 << 20
        assert headers - before < 64 * mega
        assert errors - before < 128 * mega
        assert peak - before < 512 * mega
    finally:
        process.end()
