"""Images without a truth: played and recorded, never scored."""

from __future__ import annotations

import io
import json
import math

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

import medseg_gym  # noqa: F401  (registers the ids)
from medseg_gym.cases import Case, load_cases
from medseg_gym.cases.unlabelled import UnlabelledImages
from medseg_gym.errors import CaseError
from medseg_gym.serving.middleware.api_keys import ApiKeys
from medseg_gym.trajectories import (
    TrajectoryError,
    TrajectoryStore,
    export_store,
    replay_store,
    rescore_store,
)
from medseg_gym.trajectories.export.summary import summarise_store
from medseg_gym.trajectories.replaying.rescore import rescore_trajectory
from tests.cases.files.dicom_writing import write_series
from tests.cases.files.volume_writing import piece, save
from tests.play.conftest import BOX
from tests.serving.conftest import noise, png


def send(client, content: bytes, target: str = "left kidney", **extra: str):
    files = {"image": ("Mueller_Hans_1950.png", content, "image/png")}
    return client.ask("POST", "images", files=files, data={"target": target, **extra})


def test_an_own_image_is_played_and_recorded_without_scores(open_page, record, tmp_path) -> None:
    service, client = open_page()
    made = send(client, png(noise(3)), modality="CT")
    game = client.begin(made["index"], "own")
    assert game["case"]["truth_known"] is False and "dice" not in game
    game = client.step(client.step(game, "box", BOX), "stop")
    assert game["done"] and game["steps"][-1]["mask"]
    assert not {"dice", "return", "truth"} & set(game) and "dice" not in game["steps"][-1]
    service.extensions[0].stop()

    store = TrajectoryStore(record / "people")
    (one,) = store
    assert one.facts.truth == b"" and math.isnan(one.dice) and math.isnan(one.rewards[0])
    result = replay_store(store, device="cpu")
    assert (result.exact, result.mismatches) == (2, [])
    assert list(rescore_store(store, "medsam_agent")) == []
    with pytest.raises(TrajectoryError, match="not known"):
        rescore_trajectory(one, "dice_gain")
    summary = summarise_store(store)
    assert (summary.episodes, summary.unscored, summary.dice) == (1, 1, None)
    assert export_store(store, tmp_path / "chat.jsonl", "jsonl").rows == 1
    row = json.loads((tmp_path / "chat.jsonl").read_text())
    assert row["dice"] is None and "left kidney" in str(row["messages"])
    export_store(store, tmp_path / "chat.parquet")
    exported = export_store(store, tmp_path / "verl.parquet", "verl-parquet")
    assert (exported.rows, exported.truthless) == (0, 1)

    everything = b"".join(p.read_bytes() for p in record.rglob("*") if p.is_file())
    assert b"Mueller" not in everything


def test_the_same_image_twice_is_one_case_and_shows_among_places(open_page, record) -> None:
    _, client = open_page()
    assert "own" not in [place["name"] for place in client.ask("GET", "setup")["images"]["places"]]
    first, again = send(client, png(noise(3))), send(client, png(noise(3)))
    other = send(client, png(noise(3)), "spleen")
    assert first == again and other["key"] != first["key"]
    assert client.ask("GET", "setup")["images"]["places"][-1]["title"] == "your own images"
    result = client.ask("GET", "cases", params={"place": "own"})["cases"]
    assert [case["target"] for case in result] == ["left kidney", "spleen"]
    assert client.http.get("/api/thumbnail", params={"place": "own", "index": 1}).is_success
    assert len(list((record / "images").glob("*.png"))) == 1


def test_files_that_cannot_be_used_are_named(open_page) -> None:
    _, client = open_page(limits={"max_pixels": 10_000}, image_bytes=30_000)

    def refusal(content: bytes, **extra: str) -> str:
        files = {"image": ("a.png", content, "image/png")}
        status, words = client.refusal("POST", "images", files=files, data={"target": "x", **extra})
        assert status in (422, 507)
        return words

    assert "not an image" in refusal(b"%PDF-1.4")
    assert "truncated" in refusal(png(noise())[:300])
    assert "pixels" in refusal(png(noise(0, 200, 200)))
    send(client, png(noise(0, 95, 95)))
    assert "take up" in refusal(png(noise(1, 95, 95)))
    deep = io.BytesIO()
    Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30) * 50).save(deep, "PNG")
    assert "LOW,HIGH" in refusal(deep.getvalue(), window="much")


def test_deep_images_are_shown_through_a_window(open_page, record) -> None:
    _, client = open_page()
    values = np.arange(900, dtype=np.uint16).reshape(30, 30) * 50
    deep = io.BytesIO()
    Image.fromarray(values).save(deep, "PNG")
    keys = [send(client, deep.getvalue(), window=w)["key"] for w in ("", "10000,20000")]
    source = UnlabelledImages(record / "images")
    usual, narrow = (source[source.index_of(key)].image for key in keys)
    assert usual.min() == 0 and usual.max() == 255 and len(np.unique(usual)) > 200
    assert (narrow[values <= 10000] == 0).all() and (narrow[values >= 20000] == 255).all()


def test_nobody_is_rewarded_for_a_case_without_a_truth(open_page, record) -> None:
    _, client = open_page()
    made = send(client, png(noise(3)))
    spec = f"unlabelled:{record / 'images'}"
    assert len(load_cases(spec, "train")) == 1
    with pytest.raises(CaseError, match="no split 'test'"):
        load_cases(spec, "test")
    env = gym.make("MedSeg-v0", cases=spec, backbone="ellipse", device="cpu")
    with pytest.raises(CaseError, match="no truth"):
        env.reset(seed=0)
    with pytest.raises(CaseError, match="empty mask"):
        Case("a", noise(), np.ones((48, 64), bool), "x", truth_known=False)
    body = {"policy": "random", "place": "own", "key": made["key"]}
    status, words = client.refusal("POST", "watch", json=body)
    assert status == 422 and "truth" in words


def test_own_images_are_their_owners_alone(open_page) -> None:
    keys = {"anna": "anna-key-0123456789", "ben": "ben-key-01234567890"}
    _, client = open_page(api_keys=ApiKeys(keys))
    anna, ben = ({"Authorization": f"Bearer {key}"} for key in keys.values())
    files = {"image": ("a.png", png(noise()), "image/png")}
    made = client.ask("POST", "images", files=files, data={"target": "x"}, headers=anna)
    body = {"place": "own", "key": made["key"]}
    assert client.ask("POST", "games", json=body, headers=anna)["game"]
    assert client.refusal("POST", "games", json=body, headers=ben)[0] == 404
    assert client.ask("GET", "cases", params={"place": "own"}, headers=ben)["total"] == 0


def test_a_damaged_index_or_picture_is_named(open_page, record) -> None:
    _, client = open_page()
    made = send(client, png(noise(3)))
    (picture,) = (record / "images").glob("*.png")
    picture.write_bytes(png(noise(4)))
    status, words = client.refusal("POST", "games", json={"place": "own", "key": made["key"]})
    assert status == 422 and "not the image" in words
    with (record / "images" / "images.jsonl").open("a") as file:
        file.write("{broken\n")
    status, words = client.refusal("GET", "cases", params={"place": "own"})
    assert status == 422 and "images.jsonl" in words


def test_dicom_and_slices_of_volumes_are_own_images_too(open_page, record, tmp_path) -> None:
    _, client = open_page(scan_voxels=10**6)
    volume = piece()[0]
    scan = save(tmp_path / "scan.nii.gz", volume).read_bytes()
    write_series(tmp_path / "series", volume, PatientName="Mueller^Hans")
    frames = [path.read_bytes() for path in sorted((tmp_path / "series").iterdir())]
    made = send(client, scan, slice="2", window="lung")
    other = send(client, scan, window="lung")
    assert made["key"] != other["key"]
    dicom = send(client, frames[1], modality="")
    source = UnlabelledImages(record / "images")
    cases = [source[source.index_of(one["key"])] for one in (made, dicom)]
    assert [case.image.shape[:2] for case in cases] == [volume.shape[1:]] * 2
    assert cases[1].modality == "CT" and cases[0].image.std() > 10
    game = client.step(client.begin(made["index"], "own"), "box", BOX)
    answer = client.http.get(f"/api/games/{game['game']}/mask")
    assert 'filename="mask.png"' in answer.headers["content-disposition"]
    mask = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert (mask > 0).sum() == game["steps"][-1]["pixels"] and mask.shape == volume.shape[1:]
    status, words = client.refusal("GET", f"games/{game['game']}/mask", params={"kind": "seg"})
    assert status == 422 and "comes as png" in words

    def refusal(content: bytes, **extra: str) -> str:
        files = {"image": ("a", content, "application/octet-stream")}
        return client.refusal("POST", "images", files=files, data={"target": "x", **extra})[1]

    assert f"slices 1 to {len(volume)}" in refusal(scan, slice="0")
    assert "the file" in refusal(scan[: len(scan) // 2]) and "/tmp" not in refusal(scan[:99])
    assert "LOW,HIGH" in refusal(frames[0], window="much")
    _, client = open_page(scan_voxels=100)
    assert "send the slice alone" in refusal(scan)
    assert not [p for p in record.rglob("*") if p.is_file() and b"Mueller" in p.read_bytes()]
