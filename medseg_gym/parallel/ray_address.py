"""The address of a Ray cluster, asked before Ray itself tries it for minutes."""

from __future__ import annotations

import os
import socket
from typing import Any
from urllib.parse import urlsplit

from medseg_gym.errors import MedSegError

LIMIT = 5.0
"""Seconds in which something must answer."""

_VARIABLE = "RAY_ADDRESS"


def check_address(address: str | None, option: str = "") -> None:
    """Refuse the address of a cluster where nothing listens; `ray.init` tries it for 100 s.

    Args:
        address: HOST:PORT, ray://HOST:PORT, "auto" or "local"; None is what `ray.init` takes by
            itself: `RAY_ADDRESS`, else the cluster of this machine, if there is one.
        option: It came from, for the error.

    Raises:
        MedSegError: Nothing listens there. A text that is no address is left to Ray.
    """
    for place in _places(address):
        try:
            socket.create_connection(place, LIMIT).close()
        except OSError as error:
            host, port = place
            why = error.strerror or str(error)
            raise MedSegError(
                f"{_named(address, option)}: no Ray cluster answers at {host}:{port} ({why}); "
                f"{_way_out(address)}"
            ) from None


def _places(address: str | None) -> list[tuple[str, int]]:
    """Host and port of an address; none where a cluster is started here, or Ray shall judge."""
    if address in (None, "auto"):
        address = os.environ.get(_VARIABLE) or _last_cluster(address)
    if not address or address == "local":
        return []
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        place = parts.hostname, parts.port
    except ValueError:  # a port that is no number
        return []
    return [(place[0], place[1])] if place[0] and place[1] and parts.scheme in ("", "ray") else []


def _last_cluster(address: str | None) -> str | None:
    """Address of the cluster that `ray start` left a note of on this machine, as Ray reads it.

    The note outlives a cluster that was killed.
    """
    try:
        from ray._private.services import canonicalize_bootstrap_address

        read: Any = canonicalize_bootstrap_address  # whose annotation lacks the None that it takes
        last: str | None = read(address)
    except (ImportError, TypeError, ValueError, OSError):  # not public, so it may change
        return None
    return last


def _named(address: str | None, option: str) -> str:
    """Say where the address came from."""
    variable = os.environ.get(_VARIABLE)
    if address in (None, "auto") and variable:
        return f"{_VARIABLE}={variable}"
    return " ".join(filter(None, (option, address or "Ray's cluster on this machine")))


def _way_out(address: str | None) -> str:
    if address in (None, "auto") and os.environ.get(_VARIABLE):
        return f"correct {_VARIABLE}, or unset it to start a cluster on this machine"
    if address in (None, "auto"):
        return "it has ended without `ray stop`, which also forgets its address: run that"
    return (
        "start one there with `ray start --head`, give the address of one that runs (HOST:6379), "
        "or local for one on this machine"
    )
