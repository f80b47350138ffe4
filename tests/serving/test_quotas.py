"""Nobody fills the service up for the others, and what vanished clients leave behind goes soon."""

from __future__ import annotations

import time

import httpx
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym.serving.middleware.api_keys import ApiKeys
from medseg_gym.serving.sessions.quotas import Quota, Tenant
from tests.serving.conftest import noise, upload

KEYS = {"anna": "anna-key-0123456789", "ben": "ben-key-01234567890"}


def create(client: httpx.Client, owner: str | None = None) -> httpx.Response:
    headers = {} if owner is None else {"Authorization": f"Bearer {KEYS[owner]}"}
    return client.post("/session/create", files=upload(noise()), headers=headers)


def test_an_owner_leaves_room_for_the_others(serve) -> None:
    service, client = serve(api_keys=ApiKeys(KEYS), max_sessions=8)
    codes = [create(client, "anna").status_code for _ in range(8)]
    assert codes == [200] * 6 + [503] * 2
    assert [create(client, "ben").status_code for _ in range(3)] == [200, 200, 503]
    for session in service.book.of("anna"):
        service.book.close(session)
    deadline = time.monotonic() + 20
    while len(service.segmenter._free_slots) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)  # the segmenter's thread drops the episodes
    assert create(client, "ben").status_code == 200


def test_memory_is_shared_out_as_well(serve) -> None:
    each = 48 * 64 * 6  # image and masks of a session; the ellipse's embedding has no size
    service, client = serve(api_keys=ApiKeys(KEYS), session_bytes=8 * each)
    codes = [create(client, "anna").status_code for _ in range(8)]
    assert codes.count(200) == 6 and set(codes) == {200, 503}
    assert create(client, "ben").status_code == 200
    for owner in KEYS:
        for session in service.book.of(owner):
            service.book.close(session)
    assert service.book._memory.used == 0 and service.book._slots.used == 0


def test_sessions_that_never_got_a_prompt_go_first(serve) -> None:
    service, client = serve(session_unused_seconds=0.3)
    used, unused = (create(client).json()["session_id"] for _ in range(2))
    click = {"session_id": used, "point_x": 5, "point_y": 5}
    assert client.post("/session/add_click", data=click).status_code == 200
    time.sleep(0.5)
    assert client.get(f"/session/{unused}/status").status_code == 404
    assert client.get(f"/session/{used}/status").status_code == 200
    assert len(service.book) == 1


@given(
    total=st.integers(0, 60),
    tenants=st.integers(1, 5),
    asks=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4)), max_size=60),
)
def test_a_share_can_always_be_had(total, tenants, asks) -> None:
    known = [Tenant(f"owner {i}", False) for i in range(tenants)]
    quota = Quota(total, known)
    for number, amount in asks:
        tenant = known[number % tenants]
        if quota.room(tenant) >= amount:
            quota.add(tenant, amount)
        assert quota.used <= total
        for one in known:
            share = total // (2 * tenants)
            assert quota.room(one) >= share - quota.held[one] or quota.held[one] >= share
    for one in known:
        quota.add(one, -quota.held[one])
    assert quota.used == 0
