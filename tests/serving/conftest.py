from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from medseg_gym import backbones
from medseg_gym.backbones import Backbone, EllipseBackbone
from medseg_gym.serving.app import Service
from medseg_gym.serving.limits import Limits
from medseg_gym.serving.middleware.api_keys import ApiKeys
from medseg_gym.serving.server import running


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def noise(seed: int = 0, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def upload(image: np.ndarray) -> dict[str, Any]:
    return {"image": ("image.png", png(image), "image/png")}


def mask_of(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    picture = Image.open(io.BytesIO(base64.b64decode(answer.json()["masks"][0])))
    values = np.asarray(picture)
    assert picture.mode == "L" and set(np.unique(values)) <= {0, 255}
    return values > 0


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[Service, httpx.Client]]]:
    """Start a service in a thread and give it with a client; everything ends with the test."""
    with ExitStack() as stack:

        def start(
            backbone: Backbone | None = None,
            api_keys: ApiKeys | None = None,
            options: Any = None,
            **limits: Any,
        ) -> tuple[Service, httpx.Client]:
            api_keys = api_keys or ApiKeys()
            service = Service(
                backbone or EllipseBackbone("cpu"),
                Limits(**{"max_sessions": 64, **limits}),
                api_keys,
                options,
                local_only=not api_keys.required,
            )
            url = stack.enter_context(running(service))
            client = httpx.Client(base_url=url, timeout=20, trust_env=False)
            stack.enter_context(client)
            return service, client

        yield start


@pytest.fixture(scope="session")
def pocket() -> Backbone:
    return backbones.load("pocket", device="cpu")
