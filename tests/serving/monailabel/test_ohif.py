"""The calls that OHIF's plugin makes, from a page of another address and with DICOM series."""

from __future__ import annotations

import email
import functools
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
import SimpleITK

from medseg_gym.backbones import EllipseBackbone
from medseg_gym.errors import MedSegError
from medseg_gym.serving.middleware.api_keys import ApiKeys
from medseg_gym.serving.monailabel import MonaiLabelExtension, MonaiLabelOptions
from medseg_gym.serving.server import make_service, running
from tests.cases.files.dicom_writing import uid, write_series
from tests.play.browser import CHROMIUM, FLAGS, require_browser

KEY = "a-key-that-a-page-has-to-send"
PARAMS = {
    **{"foreground": [[20, 14, 3]], "background": [], "roi": [10, 30, 8, 20, 1, 5]},
    # As its client sends them with every request.
    **{"result_extension": ".nrrd", "result_dtype": "uint16", "result_compress": False},
    "restore_label_idx": False,
}


def voxels() -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 60, (7, 30, 40)).astype(np.int16)
    values[1:6, 8:20, 10:30] += 500
    return values


@pytest.fixture
def series(tmp_path: Path) -> Path:
    write_series(tmp_path / "pacs" / "patient" / "ct", voxels())
    return tmp_path / "pacs"


def serve(stack: ExitStack, studies: Path | None, origins=(), keys=None) -> str:
    routes = MonaiLabelExtension(MonaiLabelOptions(studies=studies, labels=["liver"]))
    service = make_service(
        EllipseBackbone("cpu"),
        api_keys=ApiKeys({"viewer": keys} if keys else {}),
        extensions=[routes],
        origins=origins,
    )
    return stack.enter_context(running(service))


def test_a_series_is_an_image_by_its_uid(label_server, series) -> None:
    client = label_server(studies=series, labels=["liver"])
    id = uid(1)
    listed = client.get("/datastore/?output=all").json()["objects"]
    assert list(listed) == [id] and listed[id]["image"]["ext"] == ".nrrd"
    assert client.post("/activelearning/first", json={}).json()["id"] == id
    (series / "scan.nrrd").write_bytes(client.get(f"/datastore/image?image={id}").content)
    stored = SimpleITK.ReadImage(str(series / "scan.nrrd"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(stored), voxels())
    assert stored.GetSpacing() == pytest.approx((2.5, 3.0, 5.0))
    assert stored.GetOrigin() == pytest.approx((-40.0, -30.0, 100.0))

    answer = client.post(
        f"/infer/ellipse?image={id}&output=all", data={"params": json.dumps(PARAMS)}
    )
    assert answer.status_code == 200, answer.text
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    parts = email.message_from_bytes(head + answer.content).get_payload()
    told, label = (part.get_payload(decode=True) for part in parts)
    assert json.loads(told)["label_names"] == {"liver": 1}
    (series.parent / "label.nrrd").write_bytes(label)
    drawn = SimpleITK.ReadImage(str(series.parent / "label.nrrd"))
    assert drawn.GetPixelID() == SimpleITK.sitkUInt16 and b"encoding: raw" in label
    assert drawn.GetOrigin() == stored.GetOrigin() and drawn.GetDirection() == stored.GetDirection()
    mask = SimpleITK.GetArrayFromImage(drawn) > 0
    assert mask[1:6].any(axis=(1, 2)).all() and not mask[0].any() and not mask[6].any()

    kept = {"label": ("label.nrrd", label)}
    assert client.put(f"/datastore/label?image={id}", files=kept).status_code == 200
    assert (series / "labels" / "final" / f"{id}.nrrd").is_file()
    assert client.post("/activelearning/first", json={}).json().get("id") == "scan"


@pytest.mark.parametrize("kind", ["one slice", "damaged", "lacking", "not there"])
def test_a_series_that_is_no_volume_is_refused(label_server, tmp_path, kind) -> None:
    folder = tmp_path / "pacs"
    write_series(folder, voxels()[: 1 if kind == "one slice" else 4])
    middle = folder / "IM10"
    if kind == "damaged":
        middle.write_bytes(middle.read_bytes()[:-700])
    if kind == "lacking":
        middle.unlink()
    client = label_server(studies=folder)
    id = uid(9) if kind == "not there" else uid(1)
    answer = client.get(f"/datastore/image?image={id}")
    told = {
        "one slice": (422, "no volume of grey values"),
        "damaged": (422, "missing, damaged or there twice"),
        "lacking": (422, "5 to 10 mm apart"),
        "not there": (404, "no image of id"),
    }[kind]
    assert answer.status_code == told[0] and told[1] in answer.text
    assert str(tmp_path) not in answer.text


@pytest.mark.parametrize(
    "origin", ["*", "viewer.example.org", "https://viewer.example.org/app", "file://", "null", ""]
)
def test_an_origin_is_scheme_host_and_port(origin) -> None:
    with pytest.raises(MedSegError, match=r"--allow-origin .*write scheme, host and port"):
        make_service(EllipseBackbone("cpu"), origins=[origin])


@pytest.mark.parametrize("keys", [None, KEY])
def test_preflights_need_no_key_and_requests_do(keys) -> None:
    with ExitStack() as stack:
        origin = "http://viewer.example.org:3000"
        url = serve(stack, None, [origin], keys)
        asked = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        for page, allowed in ((origin, True), ("http://elsewhere.example.org", False)):
            answer = httpx.options(f"{url}/infer/ellipse", headers={"Origin": page, **asked})
            assert answer.is_success is allowed
            assert (answer.headers.get("access-control-allow-origin") == page) is allowed
        answer = httpx.get(f"{url}/datastore/", headers={"Origin": origin})
        assert answer.status_code == (401 if keys else 200)  # and the page may read the refusal
        assert answer.headers["access-control-allow-origin"] == origin
        foreign = httpx.get(f"{url}/info/", headers={"Origin": "http://elsewhere.example.org"})
        assert foreign.status_code == (401 if keys else 403)
        assert "access-control-allow-origin" not in foreign.headers


def test_no_other_page_may_ask_unless_one_is_named() -> None:
    with ExitStack() as stack:
        url = serve(stack, None)
        headers = {"Origin": "http://viewer.example.org:3000"}
        assert httpx.get(f"{url}/info/", headers=headers).status_code == 403
        headers["Access-Control-Request-Method"] = "GET"
        answer = httpx.options(f"{url}/info/", headers=headers)
        assert not answer.is_success and "access-control-allow-origin" not in answer.headers


@pytest.fixture
def viewer(tmp_path: Path) -> Iterator[str]:
    """Address of a page somewhere else than the service."""
    folder = tmp_path / "viewer"
    folder.mkdir()
    (folder / "index.html").write_text("<!doctype html><title>viewer</title>", encoding="utf-8")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.func.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


ASK = """async ([url, key, params]) => {
  const head = key ? {Authorization: `Bearer ${key}`} : {};
  try {
    const info = await (await fetch(`${url}/info/`, {headers: head})).json();
    const form = new FormData();
    form.append("params", JSON.stringify(params));
    const [id] = Object.keys((await (await fetch(`${url}/datastore/?output=all`,
                                                 {headers: head})).json()).objects);
    const made = await fetch(`${url}/infer/ellipse?image=${id}&output=all`,
                             {method: "POST", body: form, headers: head});
    return [Object.keys(info.models), id, made.status, (await made.arrayBuffer()).byteLength];
  } catch (error) { return String(error); }
}"""


@pytest.mark.parametrize("keys", [None, KEY])
def test_a_page_elsewhere_in_a_real_browser(series, viewer, keys) -> None:
    interface = require_browser()
    with ExitStack() as stack:
        url = serve(stack, series, [viewer], keys)
        shut = serve(stack, series, [], keys)
        driver = stack.enter_context(interface.sync_playwright())
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.goto(viewer)
        models, id, status, size = page.evaluate(ASK, [url, keys, PARAMS])
        assert "ellipse" in models and id == uid(1) and status == 200 and size > 2 * voxels().size
        assert "Failed to fetch" in page.evaluate(ASK, [shut, keys, PARAMS])
        browser.close()
