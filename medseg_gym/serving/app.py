"""The application: routes, answers to errors, and the OpenAPI description."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Sequence
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
from medseg_gym.serving.batching.segmenter import Segmenter
from medseg_gym.serving.extensions import Extension
from medseg_gym.serving.limits import Limits
from medseg_gym.serving.metrics import ServiceMetrics
from medseg_gym.serving.middleware.allowed_origins import allow_origins, check_origins
from medseg_gym.serving.middleware.api_keys import ApiKeys
from medseg_gym.serving.middleware.error_answers import error_answer
from medseg_gym.serving.middleware.requests import RequestMiddleware
from medseg_gym.serving.routes.messages import DecodeRequest, EncodeRequest
from medseg_gym.serving.routes.sessions import session_router
from medseg_gym.serving.routes.stateless import stateless_router
from medseg_gym.serving.routes.status import root_router, status_router
from medseg_gym.serving.routes.validation import Invalid, list_faults
from medseg_gym.serving.sessions.book import SessionBook

log = logging.getLogger("medseg_gym.serving")

_ABOUT = """Interactive medical image segmentation for many programs at once: prompts of all
clients share one decoder call, every image is encoded once. Research software, not for clinical
use. Where keys are set, send `Authorization: Bearer KEY`."""

_SWEEP_SECONDS = 5.0


class Service:
    """A segmentation service, ready to be run by an ASGI server.

    Args:
        backbone: Predicts the masks.
        limits: Bounds of everything that is accepted and held.
        api_keys: Keys of which requests must carry one; without any, no key is asked for.
        options: How prompts of a session become decoder rows; the suite's defaults if None.
        local_only: See `RequestMiddleware`; set where the service has no keys.
        extensions: Further routes, such as the web page of `medseg_gym.play`.
        origins: Of web pages elsewhere that may use the service, see `check_origins`.

    Raises:
        MedSegError: The backbone is remote, an origin is none, or the extensions name different
            rewards.
    """

    def __init__(
        self,
        backbone: Backbone,
        limits: Limits | None = None,
        api_keys: ApiKeys | None = None,
        options: DecodeOptions | None = None,
        local_only: bool = False,
        extensions: Sequence[Extension] = (),
        origins: Sequence[str] = (),
    ) -> None:
        if isinstance(backbone, RemoteBackbone):
            raise MedSegError(
                f"backbone {backbone.name!r} is in another process already: serve it there"
            )
        origins = check_origins(origins)
        self.limits = limits or Limits()
        self.api_keys = api_keys or ApiKeys()
        self.metrics = ServiceMetrics()
        self.extensions = tuple(extensions)
        reward = _common_reward(self.extensions)
        self.segmenter = Segmenter(backbone, self.limits, options, self.metrics, reward)
        self.book = SessionBook(self.segmenter, self.api_keys.names, games=bool(self.extensions))
        added = [router for one in self.extensions for router in one.start(self.book)]
        self.draining = False
        app = base_app(self._lifespan)
        app.state.api_keys = self.api_keys
        for router in added:  # first: of a path that two have, the extension's form is the narrower
            app.include_router(router)
        app.include_router(
            stateless_router(self.segmenter, self.limits, self.segmenter.engine.options)
        )
        app.include_router(session_router(self.book))
        app.include_router(
            status_router(
                self.segmenter.served,
                self.metrics,
                lambda: self.segmenter.alive and not self.draining,
                lambda: len(self.book),
            )
        )
        if not any(getattr(route, "path", None) == "/" for route in app.routes):
            app.include_router(root_router(self.segmenter.served))
        self.fastapi = app
        checked = RequestMiddleware(
            app,
            self.api_keys,
            self.limits,
            self.metrics,
            local_only,
            [path for one in self.extensions for path in one.open_paths],
            [path for one in self.extensions for path in one.upload_paths],
            origins,
        )
        self.asgi: Any = allow_origins(checked, origins)

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        sweeper = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            self.draining = True
            sweeper.cancel()
            for extension in self.extensions:
                await asyncio.to_thread(extension.stop)
            await asyncio.to_thread(self.segmenter.stop)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.book.close_expired()
            await asyncio.to_thread(give_back_freed_memory)


def _common_reward(extensions: Sequence[Extension]) -> str:
    rewards = sorted({extension.reward for extension in extensions})
    if len(rewards) > 1:
        raise MedSegError(
            f"the extensions of a service name different rewards ({', '.join(rewards)}); give all "
            "of them the same"
        )
    return rewards[0] if rewards else "dice_gain"


def base_app(lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None) -> FastAPI:
    """Make an application without routes: documentation without a network, errors as JSON."""
    app = FastAPIOffline(
        title="medseg_gym",
        version=version("medseg-gym"),
        description=_ABOUT,
        lifespan=lifespan,
    )

    async def expected(request: Request, error: Exception) -> Response:
        request_id = getattr(request.state, "request_id", "-")
        status, body, headers = error_answer(error, request_id)
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
            schema = plain()
            _, definitions = models_json_schema(
                [(EncodeRequest, "validation"), (DecodeRequest, "validation")],
                ref_template="#/components/schemas/{model}",
            )
            schema.setdefault("components", {}).setdefault("schemas", {}).update(
                definitions["$defs"]
            )
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
