"""`backbones.load("http:URL")`: the local results, and errors instead of scores."""

from __future__ import annotations

import http.server
import os
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import gymnasium as gym
import numpy as np
import pytest
import torch

import medseg_gym  # noqa: F401  (registers the id)
from medseg_gym import backbones
from medseg_gym.backbones import BackboneError, EllipseBackbone, PromptRow
from medseg_gym.backbones.remote.http import HttpBackbone, Patience
from medseg_gym.prompts import AddBox, AddPoint
from medseg_gym.serving.app import Service
from medseg_gym.serving.limits import Limits
from medseg_gym.serving.middleware.api_keys import ApiKeys
from medseg_gym.serving.server import running
from tests.serving.conftest import noise

QUICK = Patience(timeout=5, connect_timeout=1, retries=1, busy_seconds=2)


def connect(client, **options) -> HttpBackbone:
    return HttpBackbone(str(client.base_url), patience=QUICK, **options)


def test_an_environment_over_http_is_the_local_one(serve, pocket) -> None:
    _, client = serve(pocket)
    name = f"http:{str(client.base_url).rstrip('/')}"
    remote = gym.make_vec("MedSeg-v0", num_envs=4, backbone=name)
    local = gym.make_vec("MedSeg-v0", num_envs=4, backbone=pocket)
    remote.action_space.seed(0)
    pairs = [(remote.reset(seed=3), local.reset(seed=3))]
    for _ in range(8):
        actions = remote.action_space.sample()
        pairs.append((remote.step(actions), local.step(actions)))
    for result, expected in pairs:
        for key, value in expected[0].items():
            if key == "mask":  # a pixel whose logit is within 0.001 of zero may differ
                assert (result[0][key] != value).mean() < 1e-4
            else:
                np.testing.assert_array_equal(result[0][key], value)
        if len(expected) == 5:
            np.testing.assert_allclose(result[1], expected[1], atol=1e-3)
            np.testing.assert_array_equal(result[2], expected[2])
    assert backbones.load(name) is backbones.load(name)
    assert backbones.load(name).name == "pocket"


def test_images_that_the_service_dropped_are_sent_again(serve) -> None:
    # One at a time, so that the same bits come whatever requests make a batch.
    service, client = serve(backbones.load("pocket", device="cpu", encode_batch=1, decode_batch=1))
    backbone = connect(client)
    images = [noise(1), noise(2)]
    rows = [PromptRow(e, AddBox(0.1, 0.1, 0.8, 0.8)) for e in backbone.encode(images)]
    before = backbone.decode(rows)
    service.segmenter.served.cache.clear()
    assert torch.equal(backbone.decode(rows).logits, before.logits)
    assert service.segmenter.served.cache.counters.encodes == 2
    backbone.decode(rows)
    assert service.segmenter.served.cache.counters.encodes == 2  # and they stayed


def test_large_requests_go_in_parts(serve, pocket) -> None:
    _, client = serve(pocket, max_rows=3, max_upload_bytes=200_000)
    backbone = connect(client)
    images = [noise(i) for i in range(5)]
    logits = torch.zeros(128, 128)
    rows, like = [], []
    for i, (far, near) in enumerate(
        zip(backbone.encode(images), pocket.encode(images), strict=True)
    ):
        points = (AddPoint(0.1 * i, 0.5),)
        rows.append(PromptRow(far, points=points, mask_input=logits if i % 2 else None))
        like.append(PromptRow(near, points=points, mask_input=logits if i % 2 else None))
    result, expected = backbone.decode(rows), pocket.decode(like)
    torch.testing.assert_close(result.logits, expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(result.iou, expected.iou, atol=1e-4, rtol=0)


def test_a_dead_service_raises_with_its_address_and_scores_nothing() -> None:
    service = Service(EllipseBackbone("cpu"), Limits(max_sessions=4), local_only=True)
    with running(service) as url:
        backbone = HttpBackbone(url, patience=QUICK)
        env = gym.make("MedSeg-v0", backbone=backbone)
        env.reset(seed=0)
        env.step(np.array([0, 100, 100, 800, 800]))
    episode = env.unwrapped.engine.episode(0)
    before = len(episode.steps)
    with pytest.raises(BackboneError, match=f"service {url} does not answer"):
        env.step(np.array([1, 500, 500, 0, 0]))
    assert len(episode.steps) == before  # nothing was recorded
    with pytest.raises(BackboneError, match="is it running"):
        env.reset(seed=1)
    with pytest.raises(BackboneError, match=url):
        HttpBackbone(url, patience=QUICK)


def test_another_model_under_the_same_address_is_noticed(serve, pocket) -> None:
    service, client = serve(pocket)
    backbone = connect(client)
    object.__setattr__(backbone.facts, "fingerprint", "pocket-256-float32-other")
    with pytest.raises(BackboneError, match=r"409.*not pocket-256-float32-other"):
        backbone.encode([noise()])
    assert service.segmenter.served.cache is not None


def test_keys_are_needed_sent_and_never_told(serve, monkeypatch) -> None:
    key = "a-key-0123456789-secret"
    _, client = serve(api_keys=ApiKeys({"team": key}))
    with pytest.raises(BackboneError, match=r"401.*MEDSEG_SERVICE_KEY"):
        connect(client)
    assert connect(client, key=key).name == "ellipse"
    monkeypatch.setenv("MEDSEG_SERVICE_KEY", key)
    assert connect(client).name == "ellipse"
    monkeypatch.delenv("MEDSEG_SERVICE_KEY")
    port = client.base_url.port
    login = HttpBackbone(f"http://me:{key}@127.0.0.1:{port}", patience=QUICK)
    assert login.name == "ellipse" and key not in login.url
    again = pickle.loads(pickle.dumps(login))
    assert again.encode([noise()])[0].image_size == (48, 64)
    with pytest.raises(BackboneError) as failure:
        HttpBackbone(f"http://me:{key}-wrong@127.0.0.1:{port}", patience=QUICK)
    assert key not in str(failure.value)


def test_a_forked_child_opens_connections_of_its_own(serve, monkeypatch) -> None:
    _, client = serve()
    backbone = connect(client)
    mine = backbone._connect()
    assert backbone._connect() is mine
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert backbone._connect() is not mine
    mine.close()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("http:", "no address; write http:ADDRESS"),
        ("http://", "is not"),
        ("http:http://", "is not"),
        ("https:", "no address; write https:ADDRESS"),
    ],
)
def test_what_is_no_address_is_said_so(name, words) -> None:
    with pytest.raises(BackboneError, match=words):
        backbones.load(name)


def test_weights_are_given_where_the_backbone_is(tmp_path) -> None:
    with pytest.raises(BackboneError, match="another process"):
        backbones.load("http:http://127.0.0.1:9", checkpoint=tmp_path / "x")


@contextmanager
def scripted(answers: list[tuple[int, dict[str, str], bytes]]) -> Iterator[tuple[str, list]]:
    """A server that gives these answers in turn, the last one for ever."""
    seen: list = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            status, headers, body = answers[min(len(seen), len(answers)) - 1]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_full_service_is_waited_for_but_not_for_ever() -> None:
    full = (503, {"Retry-After": "0.1"}, b'{"detail": "full"}')
    with scripted([full, full, (200, {}, b'{"no": "facts"}')]) as (url, seen):
        with pytest.raises(BackboneError, match="not the facts"):
            HttpBackbone(url, patience=QUICK)
        assert len(seen) == 3
    with scripted([full]) as (url, seen):
        with pytest.raises(BackboneError, match="503: full"):
            HttpBackbone(url, patience=Patience(retries=1, busy_seconds=0.5))
        assert 3 <= len(seen) <= 8


def test_failures_are_tried_again_a_bounded_number_of_times() -> None:
    with scripted([(500, {}, b"replica died")]) as (url, seen):
        with pytest.raises(BackboneError, match="500: replica died"):
            HttpBackbone(url, patience=Patience(retries=2))
        assert len(seen) == 3
    with scripted([(404, {}, b"<html>nothing here</html>")]) as (url, seen):
        with pytest.raises(BackboneError, match="is that a medseg_gym service"):
            HttpBackbone(url, patience=QUICK)
        assert len(seen) == 1
