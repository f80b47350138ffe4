"""Fault injection for the segmentation service: hostile clients and accidents.

    python -m benchmarks.service.faults --requests 10000

Starts `medseg serve` with two owners' keys as a process of its own and, on 127.0.0.1 alone,

- sends requests that schemathesis makes from the service's OpenAPI description, valid and invalid,
  under the second owner's key, half of those that take a session at one that it has;
- in between, sends half of an upload and stays silent, or hangs up; asks and reads no answer;
- all the while, plays sessions under the first owner's key and compares every mask with the local
  one.

Counts answers by status, requests without any, and what of the first owner's the second ever saw.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import schemathesis
import typer
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from medseg_agents.runs.machine import describe_machine
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from benchmarks.service.clients import LOOPBACK
from benchmarks.service.load import serving
from medseg_gym import backbones
from medseg_gym.backbones import Backbone
from medseg_gym.cases import Case, load_cases
from medseg_gym.cases.image_files.images import png_bytes
from medseg_gym.cli.main import run
from medseg_gym.display.terminal import make_console
from medseg_gym.episodes import EpisodeEngine
from medseg_gym.errors import MedSegError
from medseg_gym.prompts import AddPoint
from medseg_gym.serving.routes.images import mask_text
from medseg_gym.storage.atomic_write import atomic_write

OWNER, STRANGER = "owner-key-0123456789", "stranger-key-0123456789"


def measure(
    requests: Annotated[
        int, typer.Option(help="Made by schemathesis, all routes together.")
    ] = 10_000,
    backbone: Annotated[str, typer.Option(help="As in `medseg backbones list`.")] = "ellipse",
    first_seed: Annotated[int, typer.Option(help="Of the requests.")] = 0,
    out: Annotated[Path, typer.Option(help="For results.json.")] = Path("out/service_faults"),
) -> None:
    """Send them and count what happened; fails on any 500, hang or leak."""
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        keys.write_text(f"owner:{OWNER}\nstranger:{STRANGER}\n", encoding="utf-8")
        command = [sys.executable, "-m", "medseg_gym.cli.main", "serve", "--backbone", backbone]
        command += ["--keys-file", str(keys), "--log-level", "warning"]
        command += ["--limit", "body_seconds=2", "--limit", "send_seconds=2"]
        command += ["--limit", "max_pixels=1000000"]
        with serving(command) as port:
            result = disturb(port, requests, first_seed, backbones.load(backbone))
    result |= {"machine": describe_machine(), "backbone": backbone, "seed": first_seed}
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / "results.json", json.dumps(result, indent=1))
    console = make_console()
    for name, value in result.items():
        console.print(f"{name}: {value}", highlight=False, soft_wrap=True)
    wrong = [n for n in ("server_errors", "unanswered", "wrong_masks", "leaks") if result[n]]
    if wrong or result["owners_masks"] == 0:
        raise MedSegError(f"the service did not hold: {', '.join(wrong) or 'no mask was compared'}")


def disturb(port: int, requests: int, first_seed: int, backbone: Backbone) -> dict[str, Any]:
    """Everything at once; counts."""
    over = threading.Event()
    owner = Owner(port, backbone, over)
    rude = Rude(port, over)
    threads = [threading.Thread(target=owner.play), threading.Thread(target=rude.go_on)]
    for thread in threads:
        thread.start()
    try:
        fuzzed = Fuzz(port, owner).send_all(requests, first_seed)
    finally:
        over.set()
        for thread in threads:
            thread.join(120)
    if owner.error is not None:
        raise owner.error
    with _client(port, STRANGER) as client:
        time.sleep(2.5)  # for the last half-sent upload to be given up
        text = client.get("/metrics").text
        health = client.get("/health").json()
    gauge = next(x for x in text.splitlines() if x.startswith("medseg_requests_in_flight "))
    return fuzzed | {
        "owners_masks": owner.masks,
        "wrong_masks": owner.wrong,
        "half_sent_uploads": rude.half,
        "hung_up": rude.hung_up,
        "never_read": rude.deaf,
        "requests_left_in_flight": float(gauge.split()[1]) - 1,  # the one that asks
        "health_afterwards": health["status"],
    }


def _client(port: int, key: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(
        base_url=f"http://{LOOPBACK}:{port}", headers=headers, timeout=60, trust_env=False
    )


class Fuzz:
    """Requests from the OpenAPI description, valid and invalid, spread evenly over its routes.

    Args:
        port: Of the service.
        owner: Whose session ids must show up in no answer.
    """

    def __init__(self, port: int, owner: Owner) -> None:
        self.port = port
        self.url = f"http://{LOOPBACK}:{port}"
        self.own = "none"
        self.owner = owner
        self.statuses: Counter[int] = Counter()
        self.counts: Counter[str] = Counter()
        self.errors: list[str] = []
        self.slowest = 0.0

    def send_all(self, requests: int, first_seed: int) -> dict[str, Any]:
        """Send so many; counts."""
        schema = schemathesis.openapi.from_url(f"{self.url}/openapi.json")
        work = [
            (actual.ok(), mode)
            for actual in schema.get_all_operations()
            if isinstance(actual, Ok)
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        ]
        for turn in range(100):  # hypothesis ends early where a route takes few requests
            share = -(-(requests - self.sent) // len(work))
            for number, (operation, mode) in enumerate(work):
                share = min(share, requests - self.sent)
                self._send_some(operation, mode, share, first_seed + 1000 * turn + number)
            if self.sent >= requests:
                break
        return {
            "requests": self.sent,
            "operations": len(work) // 2,
            "aimed_at_a_session": self.counts["aimed"],
            "statuses": dict(sorted(self.statuses.items())),
            "server_errors": self.counts["server_errors"],
            "unanswered": self.counts["unanswered"],
            "leaks": self.counts["leaks"],
            "slowest_seconds": round(self.slowest, 2),
            "errors": self.errors[:10],
        }

    @property
    def sent(self) -> int:
        """Requests so far."""
        return self.statuses.total() + self.counts["unanswered"]

    def _send_some(self, operation: Any, mode: GenerationMode, share: int, number: int) -> None:
        if share < 1:
            return
        last = self.sent + share

        @seed(number)
        @settings(
            max_examples=share, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(request=operation.as_strategy(generation_mode=mode))
        def send(request: Any) -> None:
            if self.sent < last:
                self._send(request)

        try:
            send()
        except Unsatisfiable:  # no invalid request can be made for a route without parameters
            self.counts["unsatisfiable"] += 1

    def _send(self, request: Any) -> None:
        label = f"{request.operation.method.upper()} {request.operation.path}"
        if self.sent % 2:
            self._aim(request)
        headers = {"Authorization": f"Bearer {STRANGER}"}
        began = time.monotonic()
        try:
            answer = request.call(base_url=self.url, headers=headers, timeout=60)
        except Exception as error:
            self.counts["unanswered"] += 1
            self.errors.append(f"{label}: {type(error).__name__}: {error}"[:300])
            return
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.statuses[answer.status_code] += 1
        if answer.status_code >= 500 and answer.status_code != 503:
            self.counts["server_errors"] += 1
            self.errors.append(f"{label}: {answer.status_code} {answer.text}"[:300])
        if any(name in answer.text for name in self.owner.ids):
            self.counts["leaks"] += 1

    def _aim(self, request: Any) -> None:
        """Name a session that the stranger has, so that what comes after is reached as well."""
        for fields in (request.body, request.path_parameters):
            if isinstance(fields, dict) and "session_id" in fields:
                with _client(self.port, STRANGER) as client:
                    upload = {"image": ("i.png", png_bytes(np.zeros((48, 64, 3), np.uint8)))}
                    if client.get(f"/session/{self.own}/status").status_code != 200:
                        made = client.post("/session/create", files=upload).json()
                        self.own = made["session_id"]
                fields["session_id"] = self.own
                self.counts["aimed"] += 1


class Owner:
    """Plays sessions all the while and compares every mask.

    Args:
        port: Of the service.
        backbone: The same one in this process.
        over: When to stop.
    """

    def __init__(self, port: int, backbone: Backbone, over: threading.Event) -> None:
        self.port, self.backbone, self.over = port, backbone, over
        self.masks = self.wrong = 0
        self.ids: list[str] = []
        self.error: BaseException | None = None

    def play(self) -> None:
        """Until it is over."""
        try:
            source = load_cases("samples", "test")
            with _client(self.port, OWNER) as client:
                number = 0
                while not self.over.is_set():
                    self._play_one(client, source[number % len(source)])
                    number += 1
        except BaseException as error:
            self.error = error

    def _play_one(self, client: httpx.Client, case: Case) -> None:
        files = {"image": ("i.png", png_bytes(case.image), "image/png")}
        session = client.post("/session/create", files=files).raise_for_status().json()
        self.ids = [*self.ids[-50:], session["session_id"]]
        engine = EpisodeEngine(self.backbone, max_steps=10)
        engine.reset([0], [case])
        for step in range(3):
            x, y = 10 + 5 * step, 20 + 3 * step
            fields = {"session_id": session["session_id"], "point_x": x, "point_y": y}
            answer = client.post("/session/add_click", data=fields).raise_for_status().json()
            engine.step([0], [AddPoint((x + 0.5) / case.width, (y + 0.5) / case.height)])
            self.masks += 1
            self.wrong += answer["masks"][0] != mask_text(engine.episode(0).state.mask)
        client.delete(f"/session/{session['session_id']}").raise_for_status()


class Rude:
    """Half-sent uploads, closed connections, answers that nobody reads.

    Args:
        port: Of the service.
        over: When to stop.
    """

    def __init__(self, port: int, over: threading.Event) -> None:
        self.port, self.over = port, over
        self.half = self.hung_up = self.deaf = 0

    def go_on(self) -> None:
        """Until it is over."""
        kept: list[socket.socket] = []
        while not self.over.wait(0.2):
            for read in (False, True):
                connection = socket.create_connection((LOOPBACK, self.port))
                connection.sendall(self._head(b'{"rows": [', 5000))
                if read:
                    connection.close()
                    self.hung_up += 1
                else:
                    kept.append(connection)  # the service gives up first
                    self.half += 1
            deaf = socket.create_connection((LOOPBACK, self.port))
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            rows = [{"image": 0, "points": [[0.5, 0.5, True]]}] * 32
            image = {"pixels": "AAAA", "size": [1, 1]}
            body = json.dumps({"images": [image], "rows": rows}).encode()
            deaf.sendall(self._head(body, len(body)))
            kept.append(deaf)
            self.deaf += 1
            while len(kept) > 40:
                kept.pop(0).close()
        for connection in kept:
            connection.close()

    def _head(self, body: bytes, length: int) -> bytes:
        return (
            f"POST /v1/decode HTTP/1.1\r\nHost: {LOOPBACK}\r\nAuthorization: Bearer {STRANGER}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        ).encode() + body


if __name__ == "__main__":
    os.environ.pop("MEDSEG_SERVICE_KEY", None)
    run(measure)
