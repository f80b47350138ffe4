"""Refuse web pages and other machines where a service has no API keys."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection


def foreign_header(headers: dict[str, str], origins: Collection[str] = ()) -> str:
    """Return the name of the header that does not name this machine, else "".

    Args:
        headers: Values by name in lower case.
        origins: That are allowed beside it.
    """
    host = headers.get("host", "")
    if host and not is_loopback(_host_of(host)):
        return "Host"
    origin = headers.get("origin", "")
    if origin and origin not in origins and origin.partition("://")[2] != host:
        return "Origin"
    return ""


def _host_of(authority: str) -> str:
    if authority.startswith("["):
        return authority.partition("]")[0][1:]
    return authority.partition(":")[0]


def is_loopback(host: str) -> bool:
    """True if an address can only be reached from this machine."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
