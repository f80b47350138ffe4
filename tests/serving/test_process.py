"""`medseg serve` as a process of its own: told to stop, and killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from medseg_gym.backbones import BackboneError, PromptRow
from medseg_gym.backbones.remote.http import HttpBackbone, Patience
from medseg_gym.prompts import AddPoint
from tests.serving.conftest import noise, upload

pytestmark = pytest.mark.slow

# One row a call, so that many requests wait: what was accepted outlives the order to stop.
ONE_BY_ONE = ["--max-batch", "1", "--limit", "queue_rows=500"]


class Process:
    """A running `medseg serve` on a free port."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "medseg_gym.cli.main", "serve", "--port", "0", *arguments]
        self.popen = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.lines: list[dict] = []
        self.url = ""
        listening = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(listening,), daemon=True)
        self._reader.start()
        assert listening.wait(120), "the service did not come up"

    def _read(self, listening: threading.Event) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            self.lines.append(json.loads(line))  # every line of the log is JSON
            if self.lines[-1]["event"] == "listening":
                self.url = self.lines[-1]["url"]
                listening.set()

    def end(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self._reader.join(10)
        assert self.popen.stderr is not None
        self.popen.stderr.close()


@pytest.fixture
def process() -> Iterator[Process]:
    made = Process("--backbone", "pocket", "--device", "cpu", *ONE_BY_ONE)
    yield made
    made.end()


def test_stopping_finishes_what_was_accepted(process) -> None:
    answers: list[httpx.Response] = []

    def click(number: int) -> None:
        with httpx.Client(base_url=process.url, timeout=60, trust_env=False) as client:
            session = client.post("/session/create", files=upload(noise(number)))
            ready.wait()
            fields = {"session_id": session.json()["session_id"], "point_x": 5, "point_y": 5}
            answers.append(client.post("/session/add_click", data=fields))

    ready = threading.Barrier(13)
    threads = [threading.Thread(target=click, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    ready.wait(60)
    counting = httpx.Client(base_url=process.url, trust_env=False)
    deadline = time.monotonic() + 20
    while "medseg_requests_in_flight 13.0" not in counting.get("/metrics").text:
        if answers or time.monotonic() > deadline:
            break
    counting.close()
    process.popen.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(60)
    assert process.popen.wait(60) == 0
    assert [answer.status_code for answer in answers] == [200] * 12
    process._reader.join(10)
    assert process.lines[-1]["event"] == "stopped"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{process.url}/health")


def test_a_kill_in_mid_request_is_an_error_not_a_mask(process) -> None:
    patience = Patience(timeout=20, connect_timeout=1, retries=1)
    backbone = HttpBackbone(process.url, patience=patience)
    (embedding,) = backbone.encode([noise()])
    rows = [PromptRow(embedding, points=(AddPoint(0.5, 0.5),))] * 200
    killer = threading.Timer(0.05, process.popen.kill)
    killer.start()
    with pytest.raises(BackboneError, match=f"service {process.url} does not answer"):
        while True:
            backbone.decode(rows)


def test_the_command_refuses_what_cannot_be(refusal, monkeypatch) -> None:
    serve = ("serve", "--backbone", "ellipse")
    command = [sys.executable, "-m", "medseg_gym.cli.main", *serve, "--host", "0.0.0.0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "set a key in MEDSEG_SERVICE_KEY" in done.stderr, done.stderr
    assert "write NAME=NUMBER" in refusal(*serve, "--limit", "sessions")
    assert "did you mean 'max_sessions'" in refusal(*serve, "--limit", "sessions=3")
    monkeypatch.setenv("MEDSEG_SERVICE_KEY", "short")
    assert "at least 16" in refusal(*serve)
