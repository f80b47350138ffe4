"""Keys decide who may send requests, and nobody sees what is another's."""

from __future__ import annotations

import base64

import httpx
import pytest

from medseg_gym.backbones import EllipseBackbone
from medseg_gym.errors import MedSegError
from medseg_gym.serving.middleware.api_keys import ApiKeys, read_keys
from medseg_gym.serving.middleware.local_only import is_loopback
from medseg_gym.serving.server import make_service
from tests.serving.conftest import noise, upload

ANNA, BEN = "anna-key-0123456789", "ben-key-01234567890"


@pytest.fixture
def api_keys() -> ApiKeys:
    return ApiKeys({"anna": ANNA, "ben": BEN})


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_sessions_are_their_owners_alone(serve, api_keys) -> None:
    _, client = serve(api_keys=api_keys)
    made = {}
    for key in (ANNA, BEN):
        answer = client.post(
            "/session/create",
            files=upload(noise()),
            data={"session_id": "same"},
            headers=bearer(key),
        )
        assert answer.status_code == 200  # the same wish of two owners: two sessions
        made[key] = client.post(
            "/session/create", files=upload(noise()), headers=bearer(key)
        ).json()["session_id"]
    click = {"session_id": "same", "point_x": 5, "point_y": 5}
    assert client.post("/session/add_click", data=click, headers=bearer(ANNA)).status_code == 200
    assert client.get("/session/same/status", headers=bearer(BEN)).json()["round_number"] == 0

    theirs = made[ANNA]
    for answer in (
        client.get(f"/session/{theirs}/status", headers=bearer(BEN)),
        client.delete(f"/session/{theirs}", headers=bearer(BEN)),
        client.post("/session/add_click", data=click | {"session_id": theirs}, headers=bearer(BEN)),
    ):
        assert answer.status_code == 404
        assert answer.json() == client.get("/session/nothing/status", headers=bearer(BEN)).json()
    listed = client.get("/sessions", headers=bearer(BEN)).json()
    assert {entry["session_id"] for entry in listed["sessions"]} == {"same", made[BEN]}


def test_without_a_key_nothing_but_health_and_description(serve, api_keys) -> None:
    service, client = serve(api_keys=api_keys)
    for header in ({}, bearer("wrong-key-0123456789"), {"Authorization": "Basic %%"}):
        answer = client.post("/session/create", files=upload(noise()), headers=header)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert client.get("/metrics", headers=header).status_code == 401
    for path in ("/health", "/healthz", "/readyz", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200
    assert client.get("/metrics", headers=bearer(ANNA)).status_code == 200
    assert len(service.book) == 0


def test_a_client_that_knows_only_urls_puts_the_key_into_it(serve, api_keys) -> None:
    _, client = serve(api_keys=api_keys)
    url = client.base_url.copy_with(username="any", password=ANNA)
    with httpx.Client(base_url=url, trust_env=False) as plain:
        assert plain.post("/session/create", files=upload(noise())).status_code == 200
        assert plain.get("/sessions").json()["total_sessions"] == 1


def test_without_keys_only_programs_of_this_machine_are_answered(serve) -> None:
    _, client = serve()
    assert client.get("/sessions").status_code == 200
    for header in (
        {"Host": "evil.example"},  # a name that its owner pointed at 127.0.0.1
        {"Host": "evil.example:8265"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ):
        answer = client.get("/sessions", headers=header)
        assert answer.status_code == 403, header
        assert next(iter(header)) in answer.json()["detail"]
    own = str(client.base_url).rstrip("/")
    assert client.get("/sessions", headers={"Origin": own}).status_code == 200


def test_other_machines_need_a_key() -> None:
    backbone = EllipseBackbone("cpu")
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        with pytest.raises(MedSegError, match="set a key in MEDSEG_SERVICE_KEY"):
            make_service(backbone, host)
    service = make_service(backbone, "0.0.0.0", api_keys=ApiKeys({"team": ANNA}))
    service.segmenter.stop()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.3.2.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("localhost.evil.example", False),
    ],
)
def test_what_is_loopback(host, expected) -> None:
    assert is_loopback(host) is expected


def test_keys_are_read_and_kept_as_hashes(tmp_path, api_keys) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# team\n\nanna:{ANNA}\nben: {BEN}\n")
    assert read_keys(path) == {"anna": ANNA, "ben": BEN}
    assert api_keys.authenticate(f"bearer {ANNA}") == "anna"
    login = base64.b64encode(f"x:{BEN}".encode()).decode()
    assert api_keys.authenticate(f"Basic {login}") == "ben"
    assert api_keys.authenticate(None) is None
    assert ANNA not in repr(vars(api_keys))

    for text, words in (("anna", "line 1"), ("", "no key"), ("a:1\na:2", "line 2")):
        path.write_text(text)
        with pytest.raises(MedSegError, match=words):
            read_keys(path)
    with pytest.raises(MedSegError, match="cannot be read"):
        read_keys(tmp_path / "none")
    for keys, words in (
        ({"a": "short"}, "at least 16"),
        ({"a": ANNA, "b": ANNA}, "another owner"),
        ({"a b": ANNA}, "owner's name"),
    ):
        with pytest.raises(MedSegError, match=words):
            ApiKeys(keys)
