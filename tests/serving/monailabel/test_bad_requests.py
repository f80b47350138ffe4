"""Requests that cannot be served are refused with the right status and a named reason."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg_gym.errors import MedSegError, PolicyError
from medseg_gym.serving.limits import Limits
from medseg_gym.serving.monailabel import MonaiLabelExtension, MonaiLabelOptions
from tests.serving.monailabel.conftest import AFFINE, SHAPE, voxels

POINT = {"foreground": [[15, 30, 4]]}
GONE = "monai-" + "0" * 32


@pytest.mark.parametrize(
    ("query", "params", "status", "words"),
    [
        ("image=one", {"foreground": [[40, 0, 0]]}, 422, "outside of the volume of 40 x 48 x 12"),
        ("image=one", {"foreground": [[0, -3, 0]]}, 422, "outside of the volume"),
        ("image=one", {**POINT, "background": [[0, 0, 12]]}, 422, "point of background"),
        ("image=one", {"foreground": [[float("nan"), 0, 0]]}, 422, "not finite"),
        ("image=one", {"foreground": [[float("inf"), 0, 0]]}, 422, "not finite"),
        ("image=one", {"foreground": [[10**400, 0, 0]]}, 422, "not finite or far too large"),
        ("image=one", {"foreground": [[1, 2]]}, 422, "[i, j, k]"),
        ("image=one", {"foreground": [["1", "2", "3"]]}, 422, "[i, j, k]"),
        ("image=one", {"foreground": [[True, 2, 3]]}, 422, "[i, j, k]"),
        ("image=one", {"foreground": {"a": 1}}, 422, "list of points"),
        ("image=one", {"foreground": [[1, 2, 3]] * 200}, 422, "200 points, and 100"),
        ("image=one", {}, 422, "nothing shows the target"),
        ("image=one", {"background": [[1, 2, 3]]}, 422, "nothing shows the target"),
        ("image=one", {"roi": [1, 2, 3]}, 422, "[i1, i2, j1, j2, k1, k2]"),
        ("image=one", {"roi": [50, 60, 0, 10, 0, 3]}, 422, "roi lies outside"),
        ("image=one", {**POINT, "result_extension": ".png"}, 422, "'.png' is not written"),
        ("image=one", {**POINT, "result_dtype": "float64"}, 422, "result_dtype"),
        ("image=one", {**POINT, "window": "dark"}, 422, "window='dark'"),
        ("image=one", {**POINT, "window": 3}, 422, "window must be a text"),
        ("image=one", [1, 2], 422, "JSON object"),
        ("image=one", None, 422, "params is not JSON"),
        ("image=one&output=dicom_seg", POINT, 422, "'dicom_seg' is not made here"),
        ("image=three", POINT, 404, "no image of id 'three'"),
        ("image=../studies/one", POINT, 404, "no image of id"),
        ("session_id=nothing", POINT, 404, "session 'nothing' is not there"),
        (f"session_id={GONE}", POINT, 404, "is not there"),
        ("", POINT, 422, "give an image"),
    ],
)
def test_a_request_that_cannot_be_carried_out(one_server, query, params, status, words) -> None:
    client = one_server
    text = "{not json" if params is None else json.dumps(params)
    answer = client.post(f"/infer/ellipse?{query}", data={"params": text})
    assert answer.status_code == status and words in answer.json()["detail"], answer.text
    assert client.get("/healthz").status_code == 200


def test_2d_requests_name_the_slice(one_server) -> None:
    client = one_server
    for params, words in (
        ({**POINT, "slice": 12}, "there is no slice 12; the volume has 0 to 11"),
        ({**POINT, "slice": 5}, "no point in foreground is on the slice"),
        ({**POINT, "slice": "4"}, "slice must be a whole number"),
    ):
        answer = client.post("/infer/ellipse_2d?image=one", data={"params": json.dumps(params)})
        assert answer.status_code == 422 and words in answer.json()["detail"]


def test_an_unknown_model_is_answered_with_those_there_are(one_server) -> None:
    answer = one_server.post("/infer/elipse?image=one", data={"params": "{}"})
    assert answer.status_code == 404
    assert "did you mean" in answer.json()["detail"] and "ellipse_2d" in answer.json()["detail"]


def four_axes(path: Path) -> bytes:
    nibabel.Nifti1Image(np.zeros((*SHAPE, 3), np.int16), AFFINE).to_filename(path)
    return path.read_bytes()


def not_finite(path: Path) -> bytes:
    values = voxels().astype(np.float32)
    values[3, 3, 3] = np.nan
    nibabel.Nifti1Image(values, AFFINE).to_filename(path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "make", "status", "words"),
    [
        ("a.nii.gz", lambda p: b"", 422, "empty (0 bytes)"),
        ("a.nii.gz", lambda p: b"no NIfTI at all", 422, "a.nii.gz"),
        ("a.nii.gz", lambda p: four_axes(p)[:4000], 422, "a.nii.gz"),
        ("a.nii.gz", four_axes, 422, "3 volumes along a fourth axis"),
        ("a.nii.gz", not_finite, 422, "slice"),
        ("a.nrrd", lambda p: b"NRRD0005\ntype: short\n\n", 422, "SimpleITK cannot read it"),
        ("a.png", lambda p: b"x", 415, "'a.png' is none of"),
        ("a.dcm", lambda p: b"x", 415, "DICOM series are not read here"),
        ("series.zip", lambda p: b"x", 415, "DICOM series are not read here"),
        ("label.bin", lambda p: b"x", 415, "raw labels"),
    ],
)
def test_files_that_are_no_volume(one_server, tmp_path, name, make, status, words) -> None:
    client = one_server
    content = make(tmp_path / "made.nii.gz")
    for answer in (
        client.post(
            "/infer/ellipse", data={"params": json.dumps(POINT)}, files={"file": (name, content)}
        ),
        *([] if "slice" in words else [client.put("/session/", files={"files": (name, content)})]),
    ):
        assert answer.status_code == status and words in answer.json()["detail"], answer.text
        assert "/tmp" not in answer.text and "medseg-monailabel" not in answer.text


def test_an_image_with_too_many_voxels_or_bytes(label_server, scan) -> None:
    few = label_server(max_voxels=1000)
    answer = few.put("/session/", files={"files": ("a.nii.gz", scan.read_bytes())})
    assert answer.status_code == 413 and "23040 voxels, and 1000" in answer.json()["detail"]
    small = label_server(limits=Limits(max_sessions=8, max_upload_bytes=2000))
    for call in (small.put, small.post):
        path = "/session/" if call == small.put else "/infer/ellipse"
        answer = call(path, files={"file": ("a.nii.gz", scan.read_bytes())})
        assert answer.status_code == 413
    full = label_server(image_bytes=2000)
    answer = full.put("/session/", files={"files": ("a.nii.gz", scan.read_bytes())})
    assert answer.status_code == 503 and answer.headers["retry-after"]


def test_what_is_not_there_is_said(label_server, scan) -> None:
    client = label_server()
    content = scan.read_bytes()
    archive = {"files": ("a.nii", b"")}
    image = {"file": ("x.nii.gz", content)}
    for answer, status, words in (
        (client.get("/train/"), 404, "nothing is trained here"),
        (client.post("/train/ellipse"), 404, "nothing is trained here"),
        (client.post("/activelearning/random"), 404, "there is: first"),
        (client.put("/session/?uncompress=true", files=archive), 415, "archives"),
        (client.get("/datastore/?output=train"), 422, "use stats or all"),
        (
            client.put("/datastore/?image=x", files=image),
            404,
            "--studies",
        ),
        (
            client.post("/infer/ellipse", files={"label": ("a.nii", b""), "file": ("b.nii", b"")}),
            415,
            "scribbles",
        ),
    ):
        assert answer.status_code == status and words in answer.json()["detail"], answer.text
    two = [("files", ("a.dcm", b"x")), ("files", ("b.dcm", b"x"))]
    assert client.put("/session/", files=two).status_code == 415
    assert client.post("/activelearning/first").json() == {}


@pytest.mark.parametrize(
    "options",
    [
        {"labels": ()},
        {"labels": ("a", "a")},
        {"labels": ("",)},
        {"window": "dark"},
        {"max_voxels": 0},
        {"session_seconds": 0},
        {"labels": [f"l{i}" for i in range(256)]},
    ],
)
def test_options_that_mean_nothing(options) -> None:
    with pytest.raises(MedSegError):
        MonaiLabelOptions(**options)


def test_no_such_folder_and_a_policy_that_sees_the_truth(label_server, tmp_path) -> None:
    from medseg_gym.play import BuiltIn

    with pytest.raises(MedSegError, match="there is no such folder"):
        MonaiLabelExtension(MonaiLabelOptions(studies=tmp_path / "none"))
    with pytest.raises(PolicyError, match="is shown the truth"):
        label_server(policies=[BuiltIn("oracle-box")])
    with pytest.raises(MedSegError, match="two models are named 'stop'"):
        label_server(policies=[BuiltIn("stop"), BuiltIn("stop")])
