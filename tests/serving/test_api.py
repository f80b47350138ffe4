"""The description, the logs, and whatever a stranger may send."""

from __future__ import annotations

import base64
import io
import json
import logging
from typing import Any

import httpx
import numpy as np
import pytest
import schemathesis
import tifffile
from hypothesis import HealthCheck, given, settings
from PIL import Image

from medseg_gym.backbones import EllipseBackbone
from medseg_gym.serving.logs import JsonLines
from tests.serving.conftest import mask_of, noise, upload


def test_the_description_needs_no_network_and_names_every_body(serve) -> None:
    _, client = serve()
    page = client.get("/docs").text
    sources = [part.split('"')[0] for part in page.split('="')[1:]]
    assert not [s for s in sources if s.startswith(("http://", "https://", "//"))]
    for source in sources:
        if source.startswith("/static"):
            assert client.get(source).status_code == 200
    described = client.get("/openapi.json").json()
    assert {"/v1/decode", "/v1/encode", "/session/create", "/predict", "/readyz"} <= set(
        described["paths"]
    )
    text = json.dumps(described)
    for name in ("DecodeRequest", "EncodeRequest", "Row", "Picture"):
        assert name in described["components"]["schemas"]
        assert f"#/components/schemas/{name}" in text


def test_v1_takes_pictures_pixels_and_hashes(serve, pocket) -> None:
    _, client = serve(pocket)
    image = noise(4)
    pixels = {"pixels": base64.b64encode(image.tobytes()).decode(), "size": [48, 64]}
    picture = {"picture": base64.b64encode(upload(image)["image"][1]).decode()}
    encoded = client.post("/v1/encode", json={"images": [pixels, picture]}).json()
    (known,) = {entry["hash"] for entry in encoded["images"]}  # one image, sent twice
    asked = client.post("/v1/encode", json={"hashes": [known, "0" * 32]}).json()
    assert asked["missing"] == ["0" * 32] and asked["images"][0]["hash"] == known

    box = [0.1, 0.2, 0.7, 0.9]
    rows = [{"image": known, "box": box}, {"image": 0, "box": box}]
    answer = client.post("/v1/decode", json={"images": [picture], "rows": rows}).json()
    logits = np.frombuffer(base64.b64decode(answer["logits"]), "<f4").reshape(answer["shape"])
    assert answer["shape"] == [2, 128, 128] and len(answer["iou"]) == 2
    np.testing.assert_array_equal(logits[0], logits[1])
    half = client.post("/v1/decode", json={"rows": rows[:1], "dtype": "float16"}).json()
    rounded = np.frombuffer(base64.b64decode(half["logits"]), "<f2").reshape(128, 128)
    np.testing.assert_allclose(rounded, logits[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"rows": [{"image": 1, "box": [0, 0, 1, 1]}]}, "1 images were sent"),
        ({"rows": [{"image": 0}]}, "no prompt"),
        ({"rows": [{"image": 0, "box": [0.5, 0, 0.5, 1]}]}, "no area"),
        ({"rows": [{"image": 0, "text": "liver"}]}, "takes no text"),
        ({"rows": [{"image": 0, "box": [0, 0, 1, 1], "mask_input": "!"}]}, "not base64"),
        ({"rows": [{"image": 0, "box": [0, 0, 1, 1], "mask_input": "AAAA"}]}, "holds 3 bytes"),
        ({"rows": [{"image": 0, "box": [0, 0, 1, 2]}]}, "less than or equal to 1"),
        ({"rows": [{"image": 0, "box": [0, 0, 1, 1], "bx": 1}]}, "Extra inputs"),
        ({"rows": [{"image": "zz", "box": [0, 0, 1, 1]}]}, "pattern"),
        ({"rows": [{"image": 0, "points": [[0, 0, 1]] * 300}]}, "256"),
        ({"images": [{"pixels": "AAAA", "size": [2, 2]}], "rows": []}, "at least 1"),
        ({"images": [{"pixels": "AAAA", "size": [2, 2]}]}, "Field required"),
        ({"backbone": "other", "rows": [{"image": 0, "box": [0, 0, 1, 1]}]}, "GET /v1/backbone"),
    ],
)
def test_bad_rows_are_named(serve, pocket, body, words) -> None:
    _, client = serve(pocket)
    sent = {"images": [{"pixels": "AAAA", "size": [1, 1]}], **body}
    answer = client.post("/v1/decode", json=sent)
    assert answer.status_code in (409, 422) and words in answer.text, answer.text


def test_logits_that_are_no_numbers_are_refused(serve, pocket) -> None:
    _, client = serve(pocket)
    for value in (np.nan, np.inf, 1e30):
        mask = base64.b64encode(np.full((128, 128), value, "<f4").tobytes()).decode()
        row = {"image": 0, "box": [0, 0, 1, 1], "mask_input": mask}
        body = {"images": [{"pixels": "AAAA", "size": [1, 1]}], "rows": [row]}
        answer = client.post("/v1/decode", json=body)
        assert answer.status_code == 422 and "not finite" in answer.json()["detail"]


def test_bodies_that_are_no_json(serve) -> None:
    _, client = serve()
    assert client.post("/v1/decode", content=b"{}").status_code == 415
    for body in (b"", b"{", b"[" * 100_000, b"\xff\xfe", b'{"rows": NaN}'):
        answer = client.post(
            "/v1/decode", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 422, body[:20]


def test_a_fault_of_the_service_is_in_its_log(serve, caplog) -> None:
    class Broken(EllipseBackbone):
        def decode(self, rows):
            if len(rows) == 1 and rows[0].points:
                raise RuntimeError("the fuse blew")
            return super().decode(rows)

    _, client = serve(Broken("cpu"))
    session = client.post("/session/create", files=upload(noise())).json()["session_id"]
    with caplog.at_level(logging.INFO, "medseg_gym.serving"):
        fields = {"session_id": session, "point_x": 1, "point_y": 1}
        answer = client.post("/session/add_click", data=fields)
    assert answer.status_code == 500 and "fuse" not in answer.text
    request = answer.headers["x-request-id"]
    assert request in answer.json()["detail"]
    failed = [r for r in caplog.records if r.levelname == "ERROR"]
    assert len(failed) == 1 and failed[0].request == request
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
    assert any("the fuse blew" in line.get("traceback", "") for line in lines)
    assert session not in json.dumps(lines)  # ids of sessions are secrets
    # The session is as it was, and goes on.
    assert client.get(f"/session/{session}/status").json()["round_number"] == 0
    box = {"session_id": session, "bbox": "[1, 1, 9, 9]"}
    assert client.post("/session/add_bbox", data=box).status_code == 200


def test_metrics_count_requests_batches_and_sessions(serve) -> None:
    _, client = serve()
    session = client.post("/session/create", files=upload(noise())).json()["session_id"]
    client.post("/session/add_click", data={"session_id": session, "point_x": 1, "point_y": 1})
    client.get("/no/such/path")
    text = client.get("/metrics").text
    for line in (
        'medseg_requests_total{method="POST",route="/session/create",status="200"} 1.0',
        'medseg_requests_total{method="GET",route="other",status="404"} 1.0',
        'medseg_batch_rows_count{kind="step"} 1.0',
        "medseg_sessions 1.0",
        "medseg_encodes_total 1.0",
    ):
        assert line in text, line


def test_a_log_line_cannot_be_forged() -> None:
    record = logging.makeLogRecord({"msg": "a\nb", "levelname": "INFO", "owner": 'x"\n{}'})
    line = JsonLines().format(record)
    assert "\n" not in line and json.loads(line)["owner"] == 'x"\n{}'


def test_strangers_get_no_500_and_leave_nothing(serve) -> None:
    # A few requests per route here; `benchmarks.service.faults` sends 10 000.
    service, client = serve(max_pixels=100_000)
    url = str(client.base_url).rstrip("/")
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    statuses: set[int] = set()
    for result in schema.get_all_operations():

        @settings(max_examples=6, suppress_health_check=list(HealthCheck))
        @given(request=result.ok().as_strategy())
        def send(request) -> None:
            answer = request.call(base_url=url)
            statuses.add(answer.status_code)
            assert answer.status_code < 500, answer.text

        send()
    assert {200, 422} <= statuses
    assert client.get("/health").status_code == 200
    assert service.asgi._requests <= 1 and service.asgi._bytes == 0


def test_a_service_that_shuts_down_is_alive_but_not_ready(serve) -> None:
    service, client = serve()
    assert client.get("/readyz").json() == {"status": "ok"}
    service.draining = True
    answer = client.get("/readyz")
    assert answer.status_code == 503 and answer.headers["retry-after"]
    assert client.get("/health").status_code == 200
    assert client.get("/healthz").json() == {"status": "ok"}


def test_every_route_takes_a_window_for_deep_images_and_turns_what_exif_turns(serve) -> None:
    """A pixel of the answer is a pixel of the image as it is shown."""
    _, client = serve()
    shown = noise()
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(np.rot90(shown)).save(buffer, "PNG", exif=exif)
    deep = io.BytesIO()
    tifffile.imwrite(deep, shown.astype(np.uint16) * 16, photometric="rgb")
    (known,) = client.post("/v1/encode", json={"images": [_pixels(shown)]}).json()["images"]
    for content, window in ((buffer.getvalue(), ""), (deep.getvalue(), "0,4080")):
        picture = {"picture": base64.b64encode(content).decode(), "window": window}
        (sent,) = client.post("/v1/encode", json={"images": [picture]}).json()["images"]
        assert sent["hash"] == known["hash"]
        files, data = {"image": ("a", content, "image/png")}, {"window": window}
        created = client.post("/session/create", files=files, data=data).json()
        assert created["image_size"] == [64, 48]
        box = {"bbox": "[8, 4, 40, 30]", **data}
        assert mask_of(client.post("/predict", files=files, data=box)).shape == (48, 64)
    files, box = {"image": ("a", deep.getvalue(), "image/tiff")}, {"bbox": "[8, 4, 40, 30]"}
    refused = [
        client.post("/v1/encode", json={"images": [{**picture, "window": ""}]}),
        client.post("/session/create", files=files),
        client.post("/predict", files=files, data=box),
        client.post("/predict", files=files, data={**box, "window": "4080,0"}),
    ]
    for answer in refused:
        assert answer.status_code == 422 and "LOW,HIGH" in answer.text, answer.text


def _pixels(image: np.ndarray) -> dict[str, Any]:
    return {"pixels": base64.b64encode(image.tobytes()).decode(), "size": list(image.shape[:2])}


def test_without_a_page_programs_find_a_description(serve) -> None:
    _, client = serve()
    assert client.get("/").json()["description"] == "/docs"
    assert client.get("/page/main.js").status_code == 404
    assert isinstance(client, httpx.Client)


def test_metrics_have_names_in_the_usual_form(serve) -> None:
    _, client = serve()
    kinds = dict(
        line.split()[2:4]
        for line in client.get("/metrics").text.splitlines()
        if line.startswith("# TYPE medseg_") and not line.split()[2].endswith("_created")
    )
    assert {"medseg_requests_total", "medseg_request_seconds", "medseg_session_bytes"} <= set(kinds)
    for name, kind in kinds.items():
        assert name.endswith("_total") == (kind == "counter"), name
        assert not name.endswith(("_ms", "_mb", "_count", "_sum", "_bucket")), name
