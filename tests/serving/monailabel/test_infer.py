"""`/info/` and `/infer/`: masks are those of the suite, labels lie on the image's own grid."""

from __future__ import annotations

import email.policy
import json
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import pytest
import SimpleITK

from medseg_gym.backbones import EllipseBackbone
from medseg_gym.cases.volumes.scan import read_volume_file
from medseg_gym.episodes.volumes import PropagationOptions, VolumeEngine
from medseg_gym.prompts import AddBox, AddPoint
from medseg_gym.prompts.volumes import Propagate, SlicePrompt
from tests.serving.monailabel.conftest import AFFINE, SHAPE, write_nifti

BOX = [10, 25, 20, 37, 3, 8]  # i, i, j, j, k, k


def infer(
    client: httpx.Client, model: str = "ellipse", query: str = "image=one", **params: Any
) -> httpx.Response:
    data = {"params": json.dumps(params)}
    return client.post(f"/infer/{model}?{query}", data=data)


def label_of(answer: httpx.Response, path: Path) -> np.ndarray:
    """Write the answer of `output=image`; its voxels in the order of the file, (I, J, K)."""
    assert answer.status_code == 200, answer.text
    path.write_bytes(answer.content)
    if path.suffix == ".nrrd":
        return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).T
    return np.asarray(nibabel.load(path).dataobj)


def test_info_has_the_fields_that_clients_read(label_server, studies) -> None:
    info = label_server(studies=studies, labels=("liver", "spleen")).get("/info/").json()
    assert info["labels"] == ["liver", "spleen"]
    kinds = {name: (one["type"], one["dimension"]) for name, one in info["models"].items()}
    assert kinds == {"ellipse": ("deepgrow", 3), "ellipse_2d": ("deepgrow", 2)}
    assert info["datastore"] == {"total": 2, "completed": 0, "label_tags": {}}
    assert info["trainers"] == info["scoring"] == info["train_stats"] == {}
    assert list(info["strategies"]) == ["first"]


def test_the_mask_is_that_of_the_suite_s_own_engine(label_server, studies, tmp_path) -> None:
    client = label_server(studies=studies)
    points = [[15, 30, 4], [20, 25, 7]]
    answer = infer(
        client, query="image=one&output=image", foreground=points, background=[[2, 3, 4]], roi=BOX
    )
    case = read_volume_file(studies / "one.nii.gz", "target")
    view = case.geometry.view
    _, height, width = view.shape

    def at(voxel: list[int], positive: bool) -> SlicePrompt:
        slice_, row, column = (
            n - 1 - voxel[axis] if flip else voxel[axis]
            for axis, flip, n in zip(view.order, view.flips, view.shape, strict=True)
        )
        return SlicePrompt(slice_, AddPoint((column + 0.5) / width, (row + 0.5) / height, positive))

    # Through an image of the box itself the corners need no arithmetic.
    marked = np.zeros(SHAPE, bool)
    marked[10:26, 20:38, 3:9] = True
    places = np.argwhere(case.geometry.shown(marked))
    (first, top, left), (last, bottom, right) = places.min(0), places.max(0)
    box = AddBox(left / width, top / height, (right + 1) / width, (bottom + 1) / height)
    engine = VolumeEngine(
        EllipseBackbone("cpu"), max_steps=9, propagation=PropagationOptions(memory=False)
    )
    engine.reset([0], [case])
    prompts = [SlicePrompt(int(first + last) // 2, box), *(at(p, True) for p in points)]
    for prompt in [*prompts, at([2, 3, 4], False), Propagate()]:
        engine.step([0], [prompt])
    expected = engine.episode(0).mask()
    expected[:first] = expected[last + 1 :] = False
    stored = case.geometry.stored(expected)
    got = label_of(answer, tmp_path / "label.nii.gz")
    assert stored.any() and got.dtype == np.uint8
    np.testing.assert_array_equal(got > 0, stored)


@pytest.mark.parametrize("extension", [".nii.gz", ".nii", ".nrrd"])
@pytest.mark.parametrize("image", ["one", "two"])
def test_a_label_lies_on_the_grid_of_its_image(
    label_server, studies, tmp_path, image, extension
) -> None:
    answer = infer(
        label_server(studies=studies),
        query=f"image={image}&output=image",
        roi=BOX,
        result_extension=extension,
    )
    path = tmp_path / f"label{extension}"
    assert label_of(answer, path).any()
    scan = next(studies.glob(f"{image}.*"))
    if image == "one" and extension != ".nrrd":
        label, own = nibabel.load(path), nibabel.load(scan)
        np.testing.assert_array_equal(label.affine, own.affine)
        assert label.header["sform_code"] == own.header["sform_code"] == 2
        return
    reader = SimpleITK.ReadImage
    if image == "one":  # SimpleITK does not read this tilted NIfTI: compare with nibabel's affine
        label = reader(str(path))
        columns = np.array(label.GetDirection()).reshape(3, 3) * label.GetSpacing()
        lps = np.diag([-1.0, -1.0, 1.0]) @ AFFINE[:3]
        np.testing.assert_allclose(columns, lps[:, :3], atol=1e-5)
        np.testing.assert_allclose(label.GetOrigin(), lps[:, 3], atol=1e-5)
        return
    label, own = reader(str(path)), reader(str(scan))
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        exact = extension == ".nrrd"  # NIfTI keeps 32 bits
        wanted, got = np.array(getattr(own, name)()), np.array(getattr(label, name)())
        np.testing.assert_allclose(got, wanted, rtol=0, atol=0 if exact else 1e-5)


def test_the_2d_model_segments_one_slice_of_the_third_axis(label_server, studies, tmp_path) -> None:
    client = label_server(studies=studies)
    for params, index in (
        ({"foreground": [[15, 30, 4]], "slice": 4}, 4),
        ({"foreground": [[15, 30, 7], [15, 30, 4]]}, 4),
        ({"roi": BOX}, 6),
        ({"roi": BOX, "slice": 3}, 3),
    ):
        answer = infer(client, "ellipse_2d", "image=one&output=image", **params)
        label = label_of(answer, tmp_path / "label.nii.gz")
        assert np.flatnonzero(label.any(axis=(0, 1))).tolist() == [index], params


@pytest.mark.parametrize(
    ("roi", "same"),
    [([25, 10, 37, 20, 8, 3], BOX), ([10, 99, 20, 37, -7, 8], [10, 39, 20, 37, 0, 8])],
)
def test_a_box_may_be_turned_round_and_reach_beyond_the_volume(
    label_server, studies, tmp_path, roi, same
) -> None:
    client = label_server(studies=studies)
    answers = [infer(client, query="image=one&output=image", roi=one) for one in (roi, same)]
    assert answers[0].content == answers[1].content
    label = label_of(answers[0], tmp_path / "label.nii.gz")
    slices = np.flatnonzero(label.any(axis=(0, 1)))
    assert slices.min() >= min(same[4:]) and slices.max() <= max(same[4:])


def test_both_come_in_one_body_and_json_alone(label_server, studies) -> None:
    client = label_server(studies=studies)
    both = infer(client, roi=BOX, label="liver", result_extension=".nrrd", result_compress=False)
    head = f"Content-Type: {both.headers['content-type']}\r\n\r\n".encode()
    parts = list(BytesParser(policy=email.policy.HTTP).parsebytes(head + both.content).iter_parts())
    params, image = parts
    result = json.loads(params.get_payload(decode=True))
    assert result["label_names"] == {"liver": 1} and result["voxels"] > 0
    assert image.get_filename().endswith(".nrrd") and b"encoding: raw" in image.get_payload(
        decode=True
    )
    alone = infer(client, query="image=one&output=json", roi=BOX, label="liver").json()
    assert {k: v for k, v in alone.items() if k != "latencies"} == {
        k: v for k, v in result.items() if k != "latencies"
    }


def test_an_image_by_session_with_the_request_and_by_id_gives_the_same(
    label_server, studies, tmp_path
) -> None:
    client = label_server(studies=studies)
    content = (studies / "one.nii.gz").read_bytes()
    made = client.put("/session/", files={"files": ("my scan.nii.gz", content)}).json()
    assert made["session_info"]["image"] == "my scan.nii.gz" and not made["session_info"]["path"]
    by_id = infer(client, query="image=one&output=image", roi=BOX)
    by_session = infer(client, query=f"session_id={made['session_id']}&output=image", roi=BOX)
    sent = client.post(
        "/infer/ellipse?output=image",
        data={"params": json.dumps({"roi": BOX})},
        files={"file": ("x.nii.gz", content)},
    )
    assert by_id.content == by_session.content == sent.content
    back = client.get(f"/session/{made['session_id']}?image=true")
    assert back.content == content
    assert client.delete(f"/session/{made['session_id']}").status_code == 200
    assert client.get(f"/session/{made['session_id']}").status_code == 404


def test_an_id_with_dots_as_ohif_sends_it_and_the_description_of_the_routes(
    label_server, studies
) -> None:
    uid = "1.2.840.113619.2.55.3"
    (studies / f"{uid}.nii.gz").write_bytes((studies / "one.nii.gz").read_bytes())
    client = label_server(studies=studies)
    given = {"result_extension": ".nrrd", "result_compress": False, "restore_label_idx": False}
    answer = infer(client, query=f"image={uid}&output=image", roi=BOX, **given)
    assert answer.status_code == 200 and b"encoding: raw" in answer.content
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/info/", "/infer/{model}", "/session/", "/datastore/label"} <= set(paths)
    assert "get" in paths["/session/{session_id}"]


def test_sessions_of_medsam_agent_work_beside_them(label_server) -> None:
    from tests.serving.conftest import noise, upload

    client = label_server()
    id = client.post("/session/create", files=upload(noise())).json()["session_id"]
    assert client.get(f"/session/{id}/status").status_code == 200
    assert client.delete(f"/session/{id}").json()["message"] == "Session deleted"


def test_the_idlest_session_makes_room_and_expired_ones_go(label_server, scan, monkeypatch) -> None:
    import time

    client = label_server(max_images=2)
    files = {"files": ("a.nii.gz", scan.read_bytes())}
    ids = [client.put("/session/?expiry=5", files=files).json()["session_id"] for _ in range(3)]
    assert [client.get(f"/session/{id}").status_code for id in ids] == [404, 200, 200]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 6)
    assert [client.get(f"/session/{id}").status_code for id in ids] == [404, 404, 404]


def test_a_window_changes_what_the_segmenter_sees(label_server, tmp_path) -> None:
    from medseg_gym import backbones
    from medseg_gym.serving.monailabel import MonaiLabelExtension
    from medseg_gym.serving.server import make_service, running

    scan = write_nifti(tmp_path / "scan.nii.gz", np.diag([1.0, 1.0, 2.0, 1.0]))
    pocket = backbones.load("pocket", device="cpu")
    service = make_service(pocket, extensions=[MonaiLabelExtension()])
    with running(service) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        files = {"files": ("a.nii.gz", scan.read_bytes())}
        id = client.put("/session/", files=files).json()["session_id"]
        counts = {
            window: infer(
                client,
                "pocket",
                f"session_id={id}&output=json",
                foreground=[[18, 29, 5]],
                window=window,
            ).json()["voxels"]
            for window in ("", "0,1000", "5000,6000")
        }
    assert abs(counts[""] - 16 * 18 * 6) < 200 and counts["5000,6000"] != counts["0,1000"]
