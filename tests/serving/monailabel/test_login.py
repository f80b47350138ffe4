"""API keys with MONAI Label's login; sessions are seen by their owner alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from medseg_gym.serving.middleware.api_keys import ApiKeys
from tests.serving.monailabel.conftest import start_server

ANN, BOB = "ann-has-a-long-key-of-her-own", "bob-has-a-long-key-of-his-own"


@pytest.fixture(scope="module")
def with_keys() -> Iterator[httpx.Client]:
    with ExitStack() as stack:
        yield start_server(stack, ApiKeys({"ann": ANN}))


def test_without_keys_nobody_logs_in(label_server) -> None:
    client = label_server()
    assert client.get("/auth/").json()["enabled"] is False
    assert client.post("/auth/token").json() == {"access_token": None, "token_type": None}
    assert client.get("/auth/token/valid").json() == {"valid": True}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "/info/"),
        ("post", "/infer/ellipse"),
        ("put", "/session/"),
        ("get", "/datastore/"),
        ("put", "/datastore/label?image=one"),
        ("get", "/datastore/image?image=one"),
        ("get", "/auth/token/valid"),
    ],
)
def test_with_keys_each_route_needs_one(with_keys, method, path) -> None:
    assert getattr(with_keys, method)(path).status_code == 401


def test_a_session_is_seen_by_its_owner_alone(label_server, scan) -> None:
    client = label_server(ApiKeys({"ann": ANN, "bob": BOB}))
    assert client.get("/auth/").json()["enabled"] is True
    assert client.post("/auth/token", data={"password": "wrong"}).status_code == 401
    token = client.post("/auth/token", data={"username": "ann", "password": ANN}).json()
    ann = {"Authorization": f"{token['token_type']} {token['access_token']}"}
    files = {"files": ("a.nii.gz", scan.read_bytes())}
    id = client.put("/session/", files=files, headers=ann).json()["session_id"]
    assert client.get(f"/session/{id}", headers=ann).status_code == 200
    bob = {"Authorization": f"Bearer {BOB}"}
    for call in (client.get, client.delete):
        assert call(f"/session/{id}", headers=bob).status_code == 404
    assert client.get(f"/session/{id}", headers=ann).status_code == 200
