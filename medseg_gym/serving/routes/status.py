"""Status routes: liveness, readiness, Prometheus metrics, and MedSAM-Agent's `/health`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Response

from medseg_gym.backbones.remote.ends import ServedBackbone
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.metrics import ServiceMetrics
from medseg_gym.serving.routes.messages import ErrorAnswer, Health, ProbeAnswer
from medseg_gym.serving.routes.responses import reply


def status_router(
    served: ServedBackbone,
    metrics: ServiceMetrics,
    ready: Callable[[], bool],
    sessions: Callable[[], int],
) -> APIRouter:
    """Return the status routes.

    Args:
        served: The backbone.
        metrics: Counters and gauges that `/metrics` shows.
        ready: Returns False while the service is shutting down.
        sessions: Returns how many sessions are open.
    """
    router = APIRouter(tags=["status"])

    @router.get("/health", response_model=Health)
    async def health() -> Response:
        """Health in the words of MedSAM-Agent's server; no key is needed."""
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

    @router.get("/healthz", response_model=ProbeAnswer)
    async def healthz() -> Response:
        """Liveness: the process answers. No key is needed."""
        return reply({"status": "ok"})

    @router.get("/readyz", response_model=ProbeAnswer, responses={503: {"model": ErrorAnswer}})
    async def readyz() -> Response:
        """Readiness: 503 while the service is shutting down. No key is needed."""
        if not ready():
            raise ServiceError("the service is shutting down", 503, retry_after=5)
        return reply({"status": "ok"})

    @router.get("/metrics", responses={401: {"model": ErrorAnswer}})
    async def prometheus_metrics() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    return router


def root_router(served: ServedBackbone) -> APIRouter:
    """Return the route `/` for programs, where no extension has it."""
    router = APIRouter(tags=["status"])

    @router.get("/")
    async def root() -> dict[str, Any]:
        """Name, version and backbone of the service, and where its description is."""
        return {
            "message": "medseg_gym segmentation service; not for clinical use",
            "version": version("medseg-gym"),
            "model_type": served.facts.name,
            "description": "/docs",
        }

    return router
