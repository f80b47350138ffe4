"""`/auth/`: MONAI Label's login, where the password is an API key, and so is the token."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.middleware.api_keys import ApiKeys
from medseg_gym.serving.routes.responses import reply


def login_router() -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["MONAI Label"])

    @router.get("/auth/")
    async def enabled(request: Request) -> Response:
        """Say whether a key is needed. No key is needed for that."""
        keys: ApiKeys = request.app.state.api_keys
        return reply({"enabled": keys.required, "client_id": "medseg_gym", "realm": ""})

    @router.post("/auth/token")
    async def token(
        request: Request, password: Annotated[str, Form(max_length=1024)] = ""
    ) -> Response:
        """Give a key back as the token that a client sends along."""
        keys: ApiKeys = request.app.state.api_keys
        if not keys.required:
            return reply({"access_token": None, "token_type": None})
        if keys.authenticate(f"Bearer {password}") is None:
            raise ServiceError("this password is no API key of the service", 401)
        return reply({"access_token": password, "token_type": "bearer"})

    @router.get("/auth/token/valid")
    async def valid(request: Request) -> Response:
        """Say whether the token that came along is a key."""
        if request.state.owner is None:
            raise ServiceError("a key is needed: log in with an API key as the password", 401)
        return reply({"valid": True})

    return router
