"""The page's static files, with headers that let nothing else run or load."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, Response

from medseg_gym.serving.errors import ServiceError

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""Content-Security-Policy of the page: no inline script or style, no text that becomes markup, no
other host."""

_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def file_router() -> APIRouter:
    """Return the routes of the page's static files; only names in the folder are served."""
    folder = files("medseg_gym.play") / "static"
    contents = {file.name: file.read_bytes() for file in folder.iterdir() if "." in file.name}
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def index() -> Response:
        return _answer("index.html")

    @router.get("/page/{name}")
    async def file(name: str) -> Response:
        return _answer(name)

    def _answer(name: str) -> Response:
        kind = _KINDS.get(name.rpartition(".")[2])
        if name not in contents or kind is None:
            raise ServiceError("the page has no such file", 404)
        return Response(contents[name], headers={**_HEADERS, "content-type": kind})

    return router
