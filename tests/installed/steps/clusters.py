"""Clusters: what is said where there is none."""

from __future__ import annotations

import socket
import time

from workplace import Workplace

from steps.arguments import OWN, SMALL
from steps.step import step

PATIENCE = 60
"""Seconds that a refusal may take on a busy machine; Ray by itself would try for over 100."""


@step("eval --ray ADDRESS where nothing listens: said at once, or how to get Ray")
def check_no_cluster(place: Workplace) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    began = time.monotonic()
    error = place.medseg("eval", "--policy", "stop", *OWN, *SMALL, "--ray", address, "--out",
                         "out/no_cluster", code=2).stderr  # fmt: skip
    if "pip install" not in error:  # Ray is there
        assert f"no Ray cluster answers at {address}" in error, error
    assert time.monotonic() - began < PATIENCE
