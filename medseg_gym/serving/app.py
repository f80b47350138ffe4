"""The application: routes, errors and descriptions put together."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from pydantic.json_schema import models_json_schema

from medseg_gym.backbones import Backbone
from medseg_gym.backbones.allocator import give_back_freed_memory
from medseg_gym.backbones.remote.ends import RemoteBackbone
from medseg_gym.episodes import DecodeOptions
from medseg_gym.errors import MedSegError
from medseg_gym.play.files import file_router
from medseg_gym.play.options import PageOptions
from medseg_gym.play.page import Page
from medseg_gym.play.routes import page_router
from medseg_gym.serving.batching.rows import Invalid, list_faults
from medseg_gym.serving.batching.segmenter import Segmenter
from medseg_gym.serving.batching.sessions import SessionBook
from medseg_gym.serving.middleware.api_keys import ApiKeys
from medseg_gym.serving.middleware.gate import RequestMiddleware, describe
from medseg_gym.serving.middleware.limits import Limits
from medseg_gym.serving.middleware.metrics import ServiceMetrics
from medseg_gym.serving.routes.messages import DecodeRequest, EncodeRequest
from medseg_gym.serving.routes.rows import row_router
from medseg_gym.serving.routes.sessions import session_router
from medseg_gym.serving.routes.status import root_router, status_router

log = logging.getLogger("medseg_gym.serving")

_ABOUT = """Interactive medical image segmentation for many programs at once: prompts of all
clients share one decoder call, every image is encoded once. Research software, not for clinical
use. Where keys are set, send `Authorization: Bearer KEY`."""

_SWEEP_SECONDS = 5.0


class Service:
    """A segmentation service, ready to be run by an ASGI server.

    Args:
        backbone: Who segments.
        limits: What is taken in.
        owners: Who may ask; everybody on this machine if None.
        options: How prompts of a session become decoder rows; the suite's defaults if None.
        local_only: See `Gate`; set where the service has no keys.
        page: What people find at `/`; None serves programs alone.
    """

    def __init__(
        self,
        backbone: Backbone,
        limits: Limits | None = None,
        owners: ApiKeys | None = None,
        options: DecodeOptions | None = None,
        local_only: bool = False,
        page: PageOptions | None = None,
    ) -> None:
        if isinstance(backbone, RemoteBackbone):
            raise MedSegError(
                f"backbone {backbone.name!r} is in another process already: serve it there"
            )
        self.limits = limits or Limits()
        self.owners = owners or ApiKeys()
        self.meters = ServiceMetrics()
        reward = "dice_gain" if page is None else page.reward
        self.segmenter = Segmenter(backbone, self.limits, options, self.meters, reward)
        self.book = SessionBook(self.segmenter, self.owners.names, games=page is not None)
        self.page = None if page is None else Page(page, self.book)
        self.draining = False
        app = base_app(self._lifespan)
        app.include_router(row_router(self.segmenter, self.limits, self.segmenter.engine.options))
        app.include_router(session_router(self.book))
        app.include_router(
            status_router(
                self.segmenter.served,
                self.meters,
                lambda: self.segmenter.alive and not self.draining,
                lambda: len(self.book),
            )
        )
        if self.page is None:
            app.include_router(root_router(self.segmenter.served))
        else:
            app.include_router(file_router())
            app.include_router(page_router(self.page))
        self.fastapi = app
        self.asgi = RequestMiddleware(app, self.owners, self.limits, self.meters, local_only)

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        sweeper = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            self.draining = True
            sweeper.cancel()
            if self.page is not None:
                await asyncio.to_thread(self.page.close)
            await asyncio.to_thread(self.segmenter.stop)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.book.close_expired()
            await asyncio.to_thread(give_back_freed_memory)


def base_app(lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None) -> FastAPI:
    """An application without routes: documentation that needs no network, errors as JSON."""
    app = FastAPIOffline(
        title="medseg_gym",
        version=version("medseg-gym"),
        description=_ABOUT,
        lifespan=lifespan,
    )

    async def expected(request: Request, error: Exception) -> Response:
        request_id = getattr(request.state, "request_id", "-")
        status, body, headers = describe(error, request_id)
        if status == 500:  # before the answer, which sends people to the log
            log.error("failed", exc_info=error, extra={"request": request_id})
        if isinstance(error, Invalid):
            body = {"detail": error.detail}
        answer = Response(json.dumps(body), status, media_type="application/json")
        answer.raw_headers.extend(headers)
        return answer

    async def unfit(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        faults = list_faults(error.errors())
        return Response(json.dumps({"detail": faults}), 422, media_type="application/json")

    app.add_exception_handler(MedSegError, expected)
    app.add_exception_handler(RequestValidationError, unfit)
    app.add_exception_handler(Exception, expected)
    describe_bodies(app)
    return app


def describe_bodies(app: FastAPI) -> None:
    """Add the bodies that handlers parse themselves to the OpenAPI description."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            found = plain()
            _, more = models_json_schema(
                [(EncodeRequest, "validation"), (DecodeRequest, "validation")],
                ref_template="#/components/schemas/{model}",
            )
            found.setdefault("components", {}).setdefault("schemas", {}).update(more["$defs"])
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
