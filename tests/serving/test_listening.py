"""An address that is said can be asked at once."""

from __future__ import annotations

import re
import signal
import socket
import threading

import uvicorn

from medseg_gym.backbones import EllipseBackbone
from medseg_gym.serving.server import make_service, serve


def test_the_address_takes_requests_before_the_server_answers(monkeypatch):
    connected = threading.Event()

    def connect(url: str) -> None:
        host, port = re.findall(r"http://(.*):(\d+)", url)[0]
        with socket.create_connection((host, int(port)), timeout=5):
            connected.set()

    def come_up_slowly(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        connected.wait(5)
        sockets[0].close()

    monkeypatch.setattr(uvicorn.Server, "run", come_up_slowly)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    service = make_service(EllipseBackbone("cpu"))
    serve(service, port=0, on_start=connect)
    service.segmenter.stop()
    assert connected.is_set()
