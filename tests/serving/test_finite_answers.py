"""Numbers of a service: finite, or an error that names backbone, service and case."""

from __future__ import annotations

import asyncio
import base64
import http.server
import json
import math
import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import gymnasium as gym
import numpy as np
import pytest
import torch

import medseg_gym  # noqa: F401  (registers the ids)
from medseg_gym.backbones import BackboneError, EllipseBackbone, PromptRow
from medseg_gym.backbones.finite import NonFiniteError
from medseg_gym.backbones.protocol import Embedding, Prediction
from medseg_gym.backbones.remote.ends import RemoteBackbone, ServedBackbone
from medseg_gym.backbones.remote.http import HttpBackbone, Patience
from medseg_gym.backbones.remote.micro_batching import decode_together, together
from medseg_gym.backbones.remote.wire import ServedFacts, WireRow
from medseg_gym.cases import Case, hash_pixels
from medseg_gym.prompts import AddBox
from medseg_gym.serving.routes.row_messages import write_decode
from tests.serving.conftest import noise, upload

QUICK = Patience(timeout=5, connect_timeout=1, retries=2, busy_seconds=2)
ILL = (40, 56)


class Broken(EllipseBackbone):
    """NaN for images of 40 x 56 pixels."""

    name = "broken-head"

    def __init__(self, where: str = "logits") -> None:
        super().__init__()
        self.where, self.decodes = where, 0

    def encode(self, images):
        result = super().encode(images)
        if self.where != "embeddings":
            return result
        return [
            Embedding(
                (torch.full((2,), math.nan if e.image_size == ILL else 0.0),),
                e.image_size,
                e.input_size,
            )
            for e in result
        ]

    def decode(self, rows):
        self.decodes += 1
        logits, iou = super().decode(rows)
        for number, row in enumerate(rows):
            if row.embedding.image_size == ILL:
                (logits if self.where == "logits" else iou)[number] = math.nan
        return Prediction(logits, iou)


def make_case(key: str, height: int, width: int) -> Case:
    image = noise(height, height, width)
    return Case(key, image, np.zeros((height, width), bool), "square", synthetic=True)


CASES = [
    make_case("well-case", 48, 64),
    make_case("fine-case", 56, 40),
    make_case("ill-case", *ILL),
]


@pytest.mark.parametrize("where", ["logits", "iou", "embeddings"])
def test_an_environment_over_http_names_backbone_service_and_case(serve, where) -> None:
    backbone = Broken(where)
    _, client = serve(backbone, max_rows=2)  # the row at fault is in the second request
    remote = HttpBackbone(str(client.base_url), patience=QUICK)
    envs = gym.make_vec(
        "MedSeg-v0", num_envs=3, cases=CASES, split=None, backbone=remote, image_size=32
    )
    before = backbone.decodes
    with pytest.raises(BackboneError, match=r"broken-head \(service http://.* case 'ill-case'"):
        envs.reset(options={"case": [case.key for case in CASES]})
        envs.step(np.tile([0, 200, 200, 800, 800], (3, 1)))
    assert not any(episode and episode.steps for episode in envs.episodes)
    assert backbone.decodes - before <= 2  # the same comes out when it is asked again


def test_other_clients_of_the_same_batch_are_not_concerned() -> None:
    served = ServedBackbone(Broken())
    images = [{hash_pixels(case.image): case.image} for case in CASES]
    requests = [([WireRow(key, (0.1, 0.1, 0.8, 0.8))], given) for given in images for key in given]
    result = together(lambda payloads: decode_together(served, payloads, max_rows=8), requests)
    assert [isinstance(one, NonFiniteError) for one in result] == [False, False, True]
    assert result[2].rows == (0,)
    again = pickle.loads(pickle.dumps(result[2]))  # as Ray sends it
    assert str(again) == str(result[2]) and again.rows == (0,)


def test_a_request_in_several_parts_names_its_own_row() -> None:
    served = ServedBackbone(Broken())
    images = {hash_pixels(case.image): case.image for case in CASES}
    rows = [WireRow(key, (0.1, 0.1, 0.8, 0.8)) for key in images]
    with pytest.raises(NonFiniteError) as error:
        decode_together(served, [(rows, images)], max_rows=1)
    assert error.value.rows == (2,)


def test_so_does_one_that_the_segmenter_divides(serve) -> None:
    service, _ = serve(Broken(), max_batch=1)
    images = {hash_pixels(case.image): case.image for case in CASES}
    rows = [WireRow(key, (0.1, 0.1, 0.8, 0.8)) for key in images]
    with pytest.raises(NonFiniteError) as error:
        asyncio.run(service.segmenter.decode(rows, images))
    assert error.value.rows == (2,)


def test_sessions_and_single_predictions_say_it_and_give_no_mask(serve) -> None:
    _, client = serve(Broken())
    answer = client.post("/predict", files=upload(noise(1, *ILL)), data={"bbox": "[4, 4, 30, 30]"})
    assert answer.status_code == 500 and "masks" not in answer.json()
    assert "'broken-head': logits that are not finite" in answer.json()["detail"]
    fine = client.post("/predict", files=upload(noise(1, 48, 64)), data={"bbox": "[4, 4, 30, 30]"})
    assert fine.status_code == 200


def test_mask_inputs_that_are_not_finite_are_refused_whatever_way_they_came() -> None:
    backbone = EllipseBackbone()
    served = ServedBackbone(backbone)
    image = noise()
    key = hash_pixels(image)
    logits = np.zeros(served.facts.logits_size, np.float32)
    logits[3, 3] = np.inf
    with pytest.raises(BackboneError, match="row 0: mask_input has values that are not finite"):
        served.decode([WireRow(key, (0.1, 0.1, 0.8, 0.8), mask_input=logits)], {key: image})


def test_half_precision_keeps_the_sign_of_what_is_beyond_it() -> None:
    logits = np.array([[[1e30, -1e30, 0.5, -70000.0]]], np.float32)
    answer = json.loads(write_decode(logits, np.zeros(1, np.float32), "float16"))
    values = np.frombuffer(base64.b64decode(answer["logits"]), "<f2")
    assert np.isfinite(values).all()
    np.testing.assert_array_equal(values > 0, [True, False, True, False])


FACTS = {
    "name": "theirs",
    "fingerprint": "theirs",
    "prompt_kinds": ["box"],
    "trained_kinds": ["box"],
    "takes_mask_input": False,
    "logits_size": [4, 4],
    "framing": "squashed",
    "frame_side": 0,
}
GOOD = base64.b64encode(np.ones(16, "<f4").tobytes()).decode()
NAN = base64.b64encode(np.full(16, np.nan, "<f4").tobytes()).decode()
INF = base64.b64encode(np.full(16, np.inf, "<f4").tobytes()).decode()


@contextmanager
def speaking(facts: str, encoded: str, decoded: str) -> Iterator[str]:
    """A server that says these texts."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def say(self, text: str) -> None:
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.say(facts)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.say(encoded if self.path == "/v1/encode" else decoded)

        def log_message(self, *_) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def decoded(**changes) -> str:
    return json.dumps(
        {"shape": [1, 4, 4], "dtype": "float32", "logits": GOOD, "iou": [0.5], **changes}
    )


def encoded(size: object = (48, 64)) -> str:
    return json.dumps(
        {"images": [{"hash": hash_pixels(noise()), "input_size": size}], "missing": []}
    )


@pytest.mark.parametrize(
    "answer",
    [
        decoded(logits=NAN),
        decoded(logits=INF),
        decoded(iou=[math.nan]),
        decoded(iou=[None]),
        decoded(iou=None),
        decoded(iou=[]),
        decoded(iou=["high"]),
        decoded(shape=[4, 4]),
        decoded(shape=[2, 4, 4]),
        decoded(shape=None),
        decoded(shape=[1, 4, math.nan]),
        decoded(logits="not base64!"),
        decoded(logits=GOOD[:8]),
        decoded(logits=None),
        "{}",
        "[]",
        '{"not_finite": {}}',
        '{"not_finite": {"rows": ["a", 99], "names": [1]}}',
    ],
)
def test_answers_that_are_none_raise(answer) -> None:
    with speaking(json.dumps(FACTS), encoded(), answer) as url:
        backbone = HttpBackbone(url, patience=QUICK)
        rows = [PromptRow(e, AddBox(0.1, 0.1, 0.8, 0.8)) for e in backbone.encode([noise()])]
        with pytest.raises(BackboneError):
            backbone.decode(rows)


@pytest.mark.parametrize(
    "size",
    [None, [], [48], [48, math.nan], [0, 64], [48, -1], [48.5, 64], ["48", "64"], [True, None]],
)
def test_sizes_that_are_none_raise(size) -> None:
    with speaking(json.dumps(FACTS), encoded(size), decoded()) as url:
        backbone = HttpBackbone(url, patience=QUICK)
        with pytest.raises(BackboneError):
            backbone.encode([noise()])


@pytest.mark.parametrize(
    "change",
    [
        {"logits_size": [math.nan, 4]},
        {"logits_size": [0, 4]},
        {"logits_size": [4, -4]},
        {"frame_side": math.inf},
        {"frame_side": -1},
        {"max_rows": math.nan},
        {"max_rows": math.inf},
        {"max_upload_bytes": "many"},
    ],
)
def test_facts_that_are_no_numbers_raise(change) -> None:
    with speaking(json.dumps(FACTS | change), encoded(), decoded()) as url:
        with pytest.raises(BackboneError, match=r"facts of a served backbone|are no numbers"):
            HttpBackbone(url, patience=QUICK)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("part", ["logits", "predicted IoU"])
def test_any_other_way_to_travel_is_checked_likewise(part, value) -> None:
    class Carrier(RemoteBackbone):
        def _encode(self, images):
            return {key: (48, 64) for key in images}

        def _decode(self, rows, images):
            logits, iou = np.ones((len(rows), 4, 4), np.float32), np.ones(len(rows), np.float32)
            (logits if part == "logits" else iou)[1] = value
            return logits, iou

    backbone = Carrier(ServedFacts.from_json(FACTS))
    rows = [PromptRow(e, AddBox(0.1, 0.1, 0.8, 0.8)) for e in backbone.encode([noise(), noise(1)])]
    with pytest.raises(NonFiniteError, match=f"'theirs': {part} .* rows 1:"):
        backbone.decode(rows)
