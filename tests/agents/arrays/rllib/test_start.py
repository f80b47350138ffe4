"""Ray as training starts it."""

from __future__ import annotations

import socket

import pytest

from medseg_gym.errors import MedSegError


def test_a_cluster_that_is_not_there_is_named_at_once(monkeypatch):
    ray = pytest.importorskip("ray")
    from medseg_agents.arrays.rllib.train import start_ray

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host, port = free.getsockname()
    monkeypatch.setenv("RAY_ADDRESS", f"{host}:{port}")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # another test's cluster stays
    with pytest.raises(MedSegError, match=rf"no Ray cluster answers at {host}:{port}"):
        start_ray()
