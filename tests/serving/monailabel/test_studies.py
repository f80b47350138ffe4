"""The datastore over a folder: lists, images in, labels in and out, nothing overwritten."""

from __future__ import annotations

import hashlib
import json

import nibabel
import numpy as np
import pytest

from tests.serving.monailabel.conftest import AFFINE, SHAPE, write_nifti


def label_bytes(path, value: int = 1, shape=SHAPE) -> bytes:
    nibabel.Nifti1Image(np.full(shape, value, np.uint8), AFFINE).to_filename(path)
    return path.read_bytes()


def save(client, content: bytes, name: str = "x.nii.gz", **params):
    return client.put(
        "/datastore/label?image=one",
        data={"params": json.dumps(params)},
        files={"label": (name, content)},
    )


def test_a_folder_is_listed_and_images_come_back(label_server, studies) -> None:
    (studies / ".hidden.nii").write_bytes(b"x")
    (studies / "notes.txt").write_text("x", encoding="utf-8")
    client = label_server(studies=studies)
    objects = client.get("/datastore/?output=all").json()["objects"]
    assert {id: one["image"]["ext"] for id, one in objects.items()} == {
        "one": ".nii.gz",
        "two": ".nrrd",
    }
    image = client.get("/datastore/image?image=two")
    assert image.content == (studies / "two.nrrd").read_bytes()
    assert 'filename="two.nrrd"' in image.headers["content-disposition"]
    assert client.head("/datastore/image?image=two").status_code == 200
    assert client.head("/datastore/image?image=three").status_code == 404
    assert client.get("/datastore/image/info?image=two").json()["name"] == "two.nrrd"


def test_a_label_that_is_saved_again_keeps_the_earlier_one(label_server, studies, tmp_path) -> None:
    client = label_server(studies=studies)
    first, second = (label_bytes(tmp_path / f"{v}.nii.gz", v) for v in (1, 2))
    assert save(client, first, label_info=[{"name": "liver", "idx": 1}]).json() == {
        "image": "one",
        "label": "one",
        "earlier": "",
    }
    assert client.get("/datastore/").json() == {
        "total": 2,
        "completed": 1,
        "label_tags": {"final": 1},
    }
    info = client.get("/datastore/label/info?label=one&tag=final").json()
    assert info == {"label_info": [{"name": "liver", "idx": 1}]}
    earlier = save(client, second).json()["earlier"]
    folder = studies / "labels" / "final"
    assert (folder / "earlier" / earlier).read_bytes() == first
    assert client.get("/datastore/label?label=one&tag=final").content == second
    third = save(client, first).json()["earlier"]
    assert third != earlier and (folder / "earlier" / third).read_bytes() == second
    left = {path.name for path in folder.iterdir()}
    assert left == {"one.nii.gz", "one.info.json", "earlier"}


def test_the_next_image_is_the_first_without_a_final_label(label_server, studies, tmp_path) -> None:
    client = label_server(studies=studies)
    digest = hashlib.sha256((studies / "one.nii.gz").read_bytes()).hexdigest()
    sample = client.post("/activelearning/first", json={"client_id": "x"}).json()
    assert (sample["id"], sample["name"]) == ("one", "one.nii.gz")
    assert sample["checksum"] == f"SHA256:{digest}" and "path" not in sample
    save(client, label_bytes(tmp_path / "l.nii.gz"))
    assert client.post("/activelearning/first", json={}).json()["id"] == "two"


def test_an_image_is_added_once(label_server, studies, tmp_path) -> None:
    client = label_server(studies=studies)
    content = write_nifti(tmp_path / "new.nii.gz").read_bytes()
    before = (studies / "one.nii.gz").read_bytes()
    for path in ("/datastore/", "/datastore/image"):
        taken = client.put(f"{path}?image=one", files={"file": ("new.nii.gz", content + b" ")})
        assert taken.status_code == 409 and "is not overwritten" in taken.json()["detail"]
    assert (studies / "one.nii.gz").read_bytes() == before
    added = client.put("/datastore/image", files={"file": ("new.nii.gz", content)})
    assert added.json() == {"image": "new"}
    assert (studies / "new.nii.gz").read_bytes() == content
    for method in ("/datastore/image?id=new", "/datastore/?id=new", "/datastore/label?id=one"):
        assert client.delete(method).status_code == 405  # nothing is deleted


@pytest.mark.parametrize(
    ("url", "name", "shape", "status", "words"),
    [
        ("/datastore/label?image=none", "x.nii.gz", SHAPE, 404, "no image of id 'none'"),
        ("/datastore/label?image=one&tag=../x", "x.nii.gz", SHAPE, 422, "tag '../x'"),
        ("/datastore/label?image=one", "x.nii.gz", (4, 4, 4), 422, "save it on the grid"),
        ("/datastore/label?image=one", "x.bin", SHAPE, 415, "raw labels"),
        ("/datastore/label?image=one", "x.nrrd", SHAPE, 422, "SimpleITK cannot read it"),
        ("/datastore/image?image=../x", "x.nii.gz", SHAPE, 422, "an id is up to 200"),
        ("/datastore/image?image=.x", "x.nii.gz", SHAPE, 422, "an id is up to 200"),
        ("/datastore/image?image=a.nrrd", "x.nii.gz", SHAPE, 422, "without an ending"),
        ("/datastore/image?image=x", "x.nrrd", SHAPE, 422, "SimpleITK cannot read it"),
    ],
)
def test_what_cannot_be_saved_leaves_nothing_behind(
    label_server, studies, tmp_path, url, name, shape, status, words
) -> None:
    client = label_server(studies=studies)
    before = sorted(path.name for path in studies.rglob("*") if path.is_file())
    content = label_bytes(tmp_path / "label.nii.gz", shape=shape)
    field = "label" if "/label" in url else "file"
    answer = client.put(url, files={field: (name, content)})
    assert answer.status_code == status and words in answer.json()["detail"], answer.text
    assert str(tmp_path) not in answer.text
    assert sorted(path.name for path in studies.rglob("*") if path.is_file()) == before


def test_params_of_a_label_are_an_object(label_server, studies, tmp_path) -> None:
    client = label_server(studies=studies)
    content = label_bytes(tmp_path / "label.nii.gz")
    for text in ("[1]", "{"):
        answer = client.put(
            "/datastore/label?image=one",
            data={"params": text},
            files={"label": ("x.nii.gz", content)},
        )
        assert answer.status_code == 422
    assert not (studies / "labels").exists()
