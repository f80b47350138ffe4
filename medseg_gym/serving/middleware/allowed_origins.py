"""Web pages of other addresses that may use a service, by the rules of CORS."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from starlette.middleware.cors import CORSMiddleware

from medseg_gym.errors import MedSegError

_ORIGIN = re.compile(r"https?://[a-z0-9.\-]+(:\d{1,5})?|https?://\[[0-9a-f:.]+\](:\d{1,5})?")
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")


def check_origins(origins: Sequence[str]) -> tuple[str, ...]:
    """Return origins as browsers name them.

    Args:
        origins: Scheme, host and port, as https://viewer.example.org:3000.

    Raises:
        MedSegError: Something else; "*" too, for any page could then use the service.
    """
    for origin in origins:
        if not _ORIGIN.fullmatch(origin.lower()):
            raise MedSegError(
                f"--allow-origin {origin[:80]}: write scheme, host and port of the pages alone, "
                "without a path, as https://viewer.example.org:3000; any other page stays shut out"
            )
    return tuple(dict.fromkeys(origin.lower() for origin in origins))


def allow_origins(app: Any, origins: Sequence[str]) -> Any:
    """Let pages of these origins read answers, refusals too, and answer their preflights.

    A preflight carries no key, so this stands before the keys are asked for; the request that
    follows has to bring one as any other.

    Args:
        app: ASGI application.
        origins: From `check_origins`; none leaves the application as it is.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=_METHODS,
        allow_headers=["*"],
        expose_headers=["Content-Disposition", "Retry-After", "X-Request-Id"],
    )
