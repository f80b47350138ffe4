"""The session routes, as MedSAM-Agent's own client calls them."""

from __future__ import annotations

import base64
import json
from uuid import uuid4

import numpy as np
import pytest

from medseg_gym.backbones import PromptRow
from medseg_gym.cases import Case, load_cases
from medseg_gym.episodes import DecodeOptions, EpisodeEngine
from medseg_gym.prompts import AddBox, AddPoint
from tests.serving.conftest import mask_of, noise, png, upload


def local(backbone, image: np.ndarray, prompts: list, options=None) -> list[np.ndarray]:
    engine = EpisodeEngine(backbone, max_steps=50, options=options)
    engine.reset([0], [Case("x", image, np.zeros(image.shape[:2], bool), "")])
    masks = []
    for prompt in prompts:
        engine.step([0], [prompt])
        masks.append(engine.episode(0).state.mask.numpy())
    return masks


def pixel(x: int, y: int, width: int, height: int, positive: bool = True) -> AddPoint:
    return AddPoint((x + 0.5) / width, (y + 0.5) / height, positive)


def test_a_client_of_the_published_server_works_unchanged(serve, pocket) -> None:
    # What that client does: it wishes for a uuid, clicks under the id it was answered, and
    # deletes under the one it wished for. Form fields, booleans as Python prints them.
    _, client = serve(pocket)
    image = load_cases("samples", "test")[0].image
    height, width = image.shape[:2]
    wish = str(uuid4())
    created = client.post("/session/create", files=upload(image), data={"session_id": wish}).json()
    assert created["image_size"] == [width, height] and created["message"]

    box = client.post(
        "/session/add_bbox",
        data={
            "session_id": created["session_id"],
            "bbox": json.dumps([150, 200, 260, 330]),
            "multimask_output": "False",
        },
    )
    click = client.post(
        "/session/add_click",
        data={
            "session_id": created["session_id"],
            "point_x": "205",
            "point_y": "260",
            "is_positive": "True",
            "multimask_output": "False",
        },
    )
    prompts = [
        AddBox(150.5 / width, 200.5 / height, 260.5 / width, 330.5 / height),
        pixel(205, 260, width, height),
    ]
    expected = local(pocket, image, prompts)
    np.testing.assert_array_equal(mask_of(box), expected[0])
    np.testing.assert_array_equal(mask_of(click), expected[1])
    # The click saw the box: alone it makes another mask.
    assert (mask_of(click) != local(pocket, image, prompts[1:])[0]).any()
    assert click.json() | {"masks": 0} == {
        "session_id": created["session_id"],
        "masks": 0,
        "category_pred": [],
        "round_number": 2,
        "total_clicks": 2,
        "message": "Segmentation round 2 completed",
    }
    status = client.get(f"/session/{wish}/status").json()
    assert status["clicks_history"] == ["bbox:[150,200,260,330]", [205, 260, 1]]
    assert status["has_mask"] and status["image_size"] == [width, height]
    listed = client.get("/sessions").json()
    assert listed["total_sessions"] == 1 and listed["sessions"][0]["round_number"] == 2

    gone = client.delete(f"/session/{wish}")
    assert gone.status_code == 200 and gone.json()["remaining_sessions"] == 0
    assert client.delete(f"/session/{wish}").status_code == 404


def test_the_rules_of_the_published_server_can_be_chosen(serve, pocket) -> None:
    options = DecodeOptions(prompt_memory="newest", multimask="never")
    _, client = serve(pocket, options=options)
    image = noise(1)
    session = client.post("/session/create", files=upload(image)).json()["session_id"]
    clicks = [(20, 20, True), (40, 30, False)]
    expected = local(pocket, image, [pixel(x, y, 64, 48, p) for x, y, p in clicks], options)
    for (x, y, positive), mask in zip(clicks, expected, strict=True):
        fields = {"session_id": session, "point_x": x, "point_y": y, "is_positive": positive}
        np.testing.assert_array_equal(mask_of(client.post("/session/add_click", data=fields)), mask)


def test_multimask_output_asks_for_three_masks_in_that_step(serve, pocket) -> None:
    _, client = serve(pocket)
    image = load_cases("samples", "test")[0].image
    height, width = image.shape[:2]
    session = client.post("/session/create", files=upload(image)).json()["session_id"]
    box = AddBox(150.5 / width, 200.5 / height, 260.5 / width, 330.5 / height)
    fields = {"session_id": session, "bbox": "[150,200,260,330]", "multimask_output": True}
    mask = mask_of(client.post("/session/add_bbox", data=fields))
    always = local(pocket, image, [box], DecodeOptions(multimask="always"))[0]
    np.testing.assert_array_equal(mask, always)
    assert (always != local(pocket, image, [box])[0]).any()


def test_segment_takes_box_and_clicks_in_order_as_steps(serve, pocket) -> None:
    _, client = serve(pocket)
    image = noise(2)
    session = client.post("/session/create", files=upload(image)).json()["session_id"]
    fields = {
        "session_id": session,
        "bbox": "[10, 10, 40, 40]",
        "point_coords": "[[20, 20], [50, 30]]",
        "point_labels": "[1, 0]",
    }
    answer = client.post("/session/segment", data=fields)
    box = AddBox(10.5 / 64, 10.5 / 48, 40.5 / 64, 40.5 / 48)
    prompts = [box, pixel(20, 20, 64, 48), pixel(50, 30, 64, 48, False)]
    np.testing.assert_array_equal(mask_of(answer), local(pocket, image, prompts)[-1])
    assert answer.json()["round_number"] == 1 and answer.json()["total_clicks"] == 3

    afresh = {"session_id": session, "bbox": "[10, 10, 40, 40]", "use_previous_mask": False}
    answer = client.post("/session/segment", data=afresh)
    np.testing.assert_array_equal(mask_of(answer), local(pocket, image, [box])[0])


def test_a_chosen_id_never_takes_over_a_session(serve) -> None:
    service, client = serve()
    first = client.post("/session/create", files=upload(noise(1)), data={"session_id": "mine"})
    second = client.post("/session/create", files=upload(noise(2)), data={"session_id": "mine"})
    assert first.status_code == 200 and second.status_code == 409
    assert "delete it first" in second.json()["detail"]
    assert service.book.get("loopback", "mine").case.image.sum() == noise(1).sum()
    for bad in ("a/b", "", "x" * 129, "naïve"):
        answer = client.post("/session/create", files=upload(noise()), data={"session_id": bad})
        assert answer.status_code in (200, 422)
        assert answer.status_code == 422 or bad == ""  # an empty field counts as none


def test_ids_are_long_and_different(serve) -> None:
    _, client = serve()
    ids = {
        client.post("/session/create", files=upload(noise())).json()["session_id"] for _ in range(8)
    }
    assert len(ids) == 8 and min(map(len, ids)) >= 43  # 32 bytes from the system's generator


@pytest.mark.parametrize(
    ("route", "fields", "words"),
    [
        ("add_click", {"point_x": 65, "point_y": 0}, "0 to 63"),
        ("add_click", {"point_x": -1, "point_y": 0}, "0 to 63"),
        ("add_click", {"point_x": 0, "point_y": 10**30}, "0 to 47"),
        ("add_bbox", {"bbox": "[1, 2, 3"}, "not JSON"),
        ("add_bbox", {"bbox": "[1, 2, 3]"}, "x1, y1, x2, y2"),
        ("add_bbox", {"bbox": "[5, 5, 5, 9]"}, "no area"),
        ("add_bbox", {"bbox": "[0, 0, NaN, 9]"}, "x2"),
        ("add_bbox", {"bbox": '["a", 0, 1, 9]'}, "x1"),
        ("segment", {}, "give a bbox"),
        ("segment", {"point_coords": "[[1, 2]]"}, "pairs"),
        ("segment", {"point_coords": "[[1, 2]]", "point_labels": "[2]"}, "label 1 or 0"),
    ],
)
def test_what_cannot_be_used_is_named_and_changes_nothing(serve, route, fields, words) -> None:
    _, client = serve()
    session = client.post("/session/create", files=upload(noise())).json()["session_id"]
    answer = client.post(f"/session/{route}", data={"session_id": session, **fields})
    assert answer.status_code == 422 and words in answer.json()["detail"]
    status = client.get(f"/session/{session}/status").json()
    assert status["round_number"] == 0 and not status["has_mask"]


def test_unknown_sessions_are_404_in_every_route(serve) -> None:
    _, client = serve()
    for answer in (
        client.post("/session/add_click", data={"session_id": "x", "point_x": 1, "point_y": 1}),
        client.post("/session/add_bbox", data={"session_id": "x", "bbox": "[0,0,1,1]"}),
        client.post("/session/segment", data={"session_id": "x", "bbox": "[0,0,1,1]"}),
        client.get("/session/x/status"),
        client.delete("/session/x"),
    ):
        assert answer.status_code == 404 and "Session not found" in answer.json()["detail"]


def test_a_session_ends_with_its_steps(serve) -> None:
    _, client = serve(max_steps=2)
    session = client.post("/session/create", files=upload(noise())).json()["session_id"]
    fields = {"session_id": session, "point_x": 3, "point_y": 4}
    codes = [client.post("/session/add_click", data=fields).status_code for _ in range(3)]
    assert codes == [200, 200, 409]


@pytest.mark.parametrize(
    "content", [b"", b"not a picture", png(noise())[:60], b"GIF89a" + b"\0" * 30]
)
def test_a_bad_file_is_refused(serve, content) -> None:
    service, client = serve()
    answer = client.post("/session/create", files={"image": ("i.png", content, "image/png")})
    assert answer.status_code == 422, answer.text
    assert len(service.book) == 0


def test_predict_is_one_decode_of_all_prompts(serve, pocket) -> None:
    _, client = serve(pocket)
    image = noise(3)
    fields = {"bbox": "[10, 10, 40, 40]", "point_coords": "[[20, 20]]", "point_labels": "[1]"}
    mask = mask_of(client.post("/predict", files=upload(image), data=fields))
    (embedding,) = pocket.encode([image])
    box = AddBox(10.5 / 64, 10.5 / 48, 40.5 / 64, 40.5 / 48)
    row = PromptRow(embedding, box, (pixel(20, 20, 64, 48),))
    logits = pocket.decode([row]).logits
    np.testing.assert_array_equal(mask, (pocket.to_image(logits, [embedding])[0] > 0).numpy())

    given = {
        "previous_logits": base64.b64encode(logits.numpy().astype("<f4").tobytes()).decode(),
        "previous_logits_shape": json.dumps([1, 128, 128]),
        "point_coords": "[[30, 30]]",
        "point_labels": "[0]",
    }
    answer = client.post("/predict_with_state", files=upload(image), data=given)
    row = PromptRow(embedding, None, (pixel(30, 30, 64, 48, False),), logits[0], True)
    expected = pocket.decode([row]).logits
    np.testing.assert_array_equal(
        mask_of(answer), (pocket.to_image(expected, [embedding])[0] > 0).numpy()
    )
    got = np.frombuffer(base64.b64decode(answer.json()["logits"]), "<f4").reshape(
        answer.json()["logits_shape"]
    )
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-4)

    bad = client.post(
        "/predict_with_state", files=upload(image), data=given | {"previous_logits": "AAAA"}
    )
    assert bad.status_code == 422 and "previous_logits holds 3 bytes" in bad.json()["detail"]
    empty = client.post("/predict", files=upload(image))
    assert empty.status_code == 422 and "no prompt" in empty.json()["detail"]
    words = client.post("/predict", files=upload(image), data={"text": '["liver"]'})
    assert words.status_code == 422 and "takes no text" in words.json()["detail"]
