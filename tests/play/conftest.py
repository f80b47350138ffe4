from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from medseg_gym.backbones import Backbone, EllipseBackbone
from medseg_gym.cases import Case
from medseg_gym.play import PageExtension, PageOptions
from medseg_gym.serving.app import Service
from medseg_gym.serving.limits import Limits
from medseg_gym.serving.middleware.api_keys import ApiKeys
from medseg_gym.serving.server import running

BOX = [0.3, 0.1, 0.9, 0.7]


class Client:
    """The page's requests, as the page makes them."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=30, trust_env=False, headers=headers)

    def ask(self, method: str, path: str, **extra: Any) -> Any:
        answer = self.http.request(method, f"/api/{path}", **extra)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def refusal(self, method: str, path: str, **extra: Any) -> tuple[int, str]:
        answer = self.http.request(method, f"/api/{path}", **extra)
        assert answer.status_code >= 400, answer.text
        return answer.status_code, answer.json()["detail"]

    def begin(self, index: int = 0, place: str = "c0", **extra: Any) -> dict[str, Any]:
        return self.ask("POST", "games", json={"place": place, "index": index, **extra})

    def step(
        self, game: dict[str, Any], tool: str, at: Sequence[float] = (), **extra: Any
    ) -> dict[str, Any]:
        body = {"tool": tool, "at": list(at), "expected": game["recorded"], **extra}
        return self.ask("POST", f"games/{game['game']}/steps", json=body)

    def play(
        self, index: int = 0, place: str = "c0", at: Sequence[float] = BOX, **extra: Any
    ) -> Any:
        game = self.step(self.begin(index, place, **extra), "box", at)
        return self.step(game, "stop")

    def watch(self, policy: str, place: str, key: str) -> dict[str, Any]:
        shown = self.ask("POST", "watch", json={"policy": policy, "place": place, "key": key})
        while not shown["done"]:
            shown = self.ask("GET", f"watch/{shown['watch']}")
        return shown


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "play"


@pytest.fixture
def open_page(record, small_cases) -> Iterator[Callable[..., tuple[Service, Client]]]:
    """Start a service with a page over small cases; everything ends with the test."""
    with ExitStack() as stack:

        def start(
            cases: Sequence[str | Sequence[Case]] | None = None,
            backbone: Backbone | None = None,
            api_keys: ApiKeys | None = None,
            limits: dict[str, Any] | None = None,
            **options: Any,
        ) -> tuple[Service, Client]:
            options.setdefault("provenance", {"backbone": "ellipse", "device": "cpu"})
            page = PageOptions(cases=cases or [small_cases], record=record, **options)
            api_keys = api_keys or ApiKeys()
            service = Service(
                backbone or EllipseBackbone("cpu"),
                Limits(**{"max_sessions": 64, **(limits or {})}),
                api_keys,
                local_only=not api_keys.required,
                extensions=[PageExtension(page)],
            )
            client = Client(stack.enter_context(running(service)))
            stack.enter_context(client.http)
            return service, client

        yield start


def scattered(count: int = 6) -> list[Case]:
    """Cases of as many groups, for intervals."""
    result = []
    for number in range(count):
        mask = np.zeros((32, 32), bool)
        mask[8 : 12 + 2 * number, 6:20] = True
        image = np.full((32, 32, 3), 40 + 10 * number, np.uint8)
        image[mask] = 200
        group = f"patient {number}"
        result.append(
            Case(f"case-{number}", image, mask, "square", "CT", group=group, synthetic=True)
        )
    return result
