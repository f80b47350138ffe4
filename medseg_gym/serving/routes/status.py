"""Is it there, is it ready, what did it count."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Response

from medseg_gym.backbones.remote.ends import ServedBackbone
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.middleware.metrics import ServiceMetrics
from medseg_gym.serving.routes.messages import ErrorAnswer, Health
from medseg_gym.serving.routes.rows import reply


def status_router(
    served: ServedBackbone,
    meters: ServiceMetrics,
    ready: Callable[[], bool],
    sessions: Callable[[], int],
) -> APIRouter:
    """Status routes.

    Args:
        served: Who segments.
        meters: What is counted.
        ready: False while the service is shutting down.
        sessions: How many are alive.
    """
    router = APIRouter(tags=["status"])

    @router.get("/health", response_model=Health)
    async def health() -> Response:
        """The process answers; no key is needed."""
        return reply(
            {
                "status": "healthy",
                "model_loaded": True,
                "model_type": served.facts.name,
                "device": str(served.backbone.device),
                "active_sessions": sessions(),
                "timestamp": datetime.now(timezone.utc).isoformat(),
            }
        )

    @router.get("/ready", responses={503: {"model": ErrorAnswer}})
    async def is_ready() -> dict[str, bool]:
        """503 while the service is shutting down; no key is needed."""
        if not ready():
            raise ServiceError("the service is shutting down", 503, retry_after=5)
        return {"ready": True}

    @router.get("/metrics", responses={401: {"model": ErrorAnswer}})
    async def metrics() -> Response:
        """Counters as Prometheus reads them."""
        return Response(meters.text(), media_type="text/plain; version=0.0.4")

    return router


def root_router(served: ServedBackbone) -> APIRouter:
    """What programs find at `/` where there is no page."""
    router = APIRouter(tags=["status"])

    @router.get("/")
    async def root() -> dict[str, Any]:
        """What this is and where the description is."""
        return {
            "message": "medseg_gym segmentation service; not for clinical use",
            "version": version("medseg-gym"),
            "model_type": served.facts.name,
            "description": "/docs",
        }

    return router
