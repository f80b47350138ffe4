"""An address where no Ray cluster is: said at once, not after Ray has tried it for minutes."""

from __future__ import annotations

import socket
import time

import pytest

from medseg_gym.errors import MedSegError
from medseg_gym.parallel import WorkerOptions, make_crew
from medseg_gym.parallel.ray_address import LIMIT, check_address

from .players import Doubling


@pytest.fixture
def closed(monkeypatch):
    """An address where nothing listens."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host, port = free.getsockname()
    return f"{host}:{port}"


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_where_nothing_listens(closed, scheme):
    words = rf"--ray {scheme}{closed}: no Ray cluster answers at {closed} .*`ray start --head`"
    with pytest.raises(MedSegError, match=words):
        check_address(scheme + closed, "--ray")


def test_a_host_that_is_unknown(closed):
    with pytest.raises(MedSegError, match=r"no Ray cluster answers at nowhere\.invalid:6379"):
        check_address("nowhere.invalid:6379")


@pytest.mark.parametrize("address", [None, "auto"])
def test_the_variable_counts_as_it_does_for_ray(closed, address, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", closed)
    words = rf"^RAY_ADDRESS={closed}: no Ray cluster .*; correct RAY_ADDRESS, or unset it"
    with pytest.raises(MedSegError, match=words):
        check_address(address)
    check_address("local")


def test_a_cluster_that_was_killed_has_left_a_note(closed, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    check_address(None)
    note = tmp_path / "ray" / "ray_current_cluster"
    note.parent.mkdir(exist_ok=True)
    note.write_text(closed)
    with pytest.raises(MedSegError, match=r"cluster on this machine: .* without `ray stop`"):
        check_address(None)


@pytest.mark.parametrize("address", ["local", "here", "host:port", "http://127.0.0.1:1"])
def test_what_is_no_address_is_left_to_ray(address):
    check_address(address)


def test_what_listens_is_not_refused():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        check_address(f"127.0.0.1:{server.getsockname()[1]}")


def test_a_crew_is_refused_at_once(closed, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # another test's cluster stays
    began = time.monotonic()
    with pytest.raises(MedSegError, match="no Ray cluster answers"):
        make_crew(Doubling, WorkerOptions(ray=closed), 9)
    assert time.monotonic() - began < LIMIT + 5
