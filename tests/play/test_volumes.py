"""The page's volumes over HTTP: games on slices, own scans from disk, masks to download."""

from __future__ import annotations

import base64
import io
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from medseg_gym.cases import VolumeCase
from medseg_gym.cases.dicom.scan import read_series
from medseg_gym.errors import MedSegError
from medseg_gym.play import PageOptions
from medseg_gym.play.volumes.ahead import REACH
from medseg_gym.serving.middleware.api_keys import ApiKeys
from tests.cases.files.dicom_writing import write_series
from tests.cases.files.volume_writing import piece, save
from tests.play.conftest import Client

SECRET = "Mueller^Hans"


def tube(depth: int = 7, height: int = 40, width: int = 60) -> VolumeCase:
    """A bright tube through the middle slices."""
    mask = np.zeros((depth, height, width), bool)
    mask[1 : depth - 1, 10:30, 15:45] = True
    image = np.where(mask, 200, 60).astype(np.uint8)
    return VolumeCase(
        "tube", image, mask, "tube", "CT", (5.0, 1.0, 1.0), group="one", synthetic=True
    )


BOX = [0.3505, 0.3505, 0.6505, 0.6505]  # on the grid of the array actions


class Volumes:
    """The requests of the page's volumes."""

    def __init__(self, client: Client, headers: dict[str, str] | None = None) -> None:
        self.client, self.headers = client, headers

    def ask(self, method: str, path: str, **extra: Any) -> Any:
        return self.client.ask(method, path, headers=self.headers, **extra)

    def refusal(self, method: str, path: str, **extra: Any) -> tuple[int, str]:
        return self.client.refusal(method, path, headers=self.headers, **extra)

    def begin(self, index: int = 0, place: str = "v0", **extra: Any) -> dict[str, Any]:
        return self.ask("POST", "games", json={"place": place, "index": index, **extra})

    def step(
        self, game: dict[str, Any], tool: str, slice: int | None = None, at: Sequence[float] = ()
    ) -> dict[str, Any]:
        body = {"tool": tool, "at": list(at), "expected": game["taken"]}
        body |= {} if slice is None else {"slice": slice}
        return self.ask("POST", f"games/{game['game']}/steps", json=body)

    def mask(self, game: dict[str, Any], index: int) -> np.ndarray:
        """(H, W) bool, of a slice that has one."""
        number = game["slices"][str(index)]["mask"]
        return self.pixels(f"volumes/{game['game']}/masks/{index}?mask={number}") > 0

    def pixels(self, path: str) -> np.ndarray:
        answer = self.client.http.get(f"/api/{path}", headers=self.headers)
        assert answer.status_code == 200, answer.text
        return np.asarray(Image.open(io.BytesIO(answer.content)))

    def send(self, files: Sequence[tuple[str, bytes]], chunk: int = 1 << 20) -> str:
        """Upload files of kinds; returns the upload's id."""
        id = self.ask("POST", "volumes/scans")["upload"]
        for number, (kind, content) in enumerate(files):
            for offset in range(0, len(content), chunk):
                query = {"id": id, "file": number, "offset": offset, "kind": kind}
                part = content[offset : offset + chunk]
                self.ask("PUT", "volumes/upload", params=query, content=part)
        return id

    def open(self, files: Sequence[tuple[str, bytes]], **extra: Any) -> dict[str, Any]:
        return self.ask(
            "POST", f"volumes/scans/{self.send(files)}", json={"target": "lung", **extra}
        )

    def unusable(self, files: Sequence[tuple[str, bytes]], **extra: Any) -> str:
        body = {"target": "lung", **extra}
        status, words = self.refusal("POST", f"volumes/scans/{self.send(files)}", json=body)
        assert status in (413, 422), words
        return words


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """Folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def volumes(open_page, temporary) -> Volumes:
    return Volumes(open_page(volumes=[[tube()]])[1])


@pytest.fixture
def nifti(tmp_path) -> Path:
    """An oblique-coded NIfTI whose codes and voxel order are not the usual ones."""
    return save(tmp_path / f"{SECRET}.nii.gz", piece()[0], codes="PIR")


def dicom(folder: Path) -> list[tuple[str, bytes]]:
    write_series(folder, piece()[0], PatientName=SECRET, PatientID="4711")
    return [(".dcm", path.read_bytes()) for path in sorted(folder.iterdir())]


# games --------------------------------------------------------------------------------------------
def test_a_game_goes_through_slices_and_is_scored_in_3d(volumes) -> None:
    game = volumes.begin()
    assert game["case"]["depth"] == 7 and game["view"] == 3 and game["formats"] == ["nifti"]
    assert game["dice"] == 0 and "truth" not in game and "mask" not in game
    game = volumes.step(game, "box", 2, BOX)
    assert list(game["slices"]) == ["2"] and game["slices"]["2"]["box"] == BOX
    assert game["view"] == 2 and game["mask"] and 0 < game["dice"] < 0.5
    one_slice = game["voxels"]
    game = volumes.step(game, "propagate")
    assert game["voxels"] > one_slice and len(game["slices"]) > 3
    assert game["slices"]["2"]["prompted"] and not game["slices"]["3"]["prompted"]
    assert volumes.mask(game, 3).sum() == game["slices"]["3"]["pixels"]
    carried = game["slices"]["3"]["mask"]
    game = volumes.step(game, "positive_point", 3, [0.5005, 0.5005])
    assert game["slices"]["3"]["points"] == [[0.5005, 0.5005, True]]
    assert game["slices"]["3"]["mask"] != carried
    game = volumes.step(game, "undo")
    assert game["slices"]["3"]["mask"] == carried
    game = volumes.step(game, "clear")
    assert game["slices"] == {} and game["voxels"] == 0
    game = volumes.step(volumes.step(game, "undo"), "stop")
    assert game["done"] and game["stopped"] and game["truth"] == [1, 2, 3, 4, 5]
    truth = volumes.pixels(f"volumes/{game['game']}/truth/3") > 0
    assert (truth == tube().mask[3]).all()
    whole = volumes.ask("GET", f"games/{game['game']}")
    assert [step["tool"] for step in whole["steps"]] == [
        "box", "propagate", "positive_point", "undo", "clear", "undo", "stop",
    ]  # fmt: skip
    assert volumes.refusal("POST", f"games/{game['game']}/steps",
                           json={"tool": "undo", "expected": 7})[0] == 409  # fmt: skip


def test_the_truth_and_scores_are_not_sent_before_their_time(volumes) -> None:
    game = volumes.begin(exam=True)
    game = volumes.step(game, "box", 3, BOX)
    assert "dice" not in game and "dice" not in game["steps"][0]
    assert volumes.refusal("GET", f"volumes/{game['game']}/truth/3")[0] == 404
    game = volumes.step(game, "stop")
    assert game["dice"] > 0 and volumes.ask("GET", f"games/{game['game']}")["steps"][0]["dice"] > 0


def test_invalid_steps_say_so_and_wrong_requests_are_refused(volumes) -> None:
    game = volumes.begin()
    game = volumes.step(game, "propagate")
    assert not game["steps"][0]["valid"] and "no slice" in game["steps"][0]["error"]
    path = f"games/{game['game']}/steps"
    for body in (
        {"tool": "box", "slice": 1, "at": [0.1], "expected": 1},
        {"tool": "box", "at": BOX, "expected": 1},
        {"tool": "undo", "slice": 2, "expected": 1},
        {"tool": "look", "slice": 2, "expected": 1},
        {"tool": "box", "slice": 1, "at": [0, 0, 2, 2], "expected": 1},
    ):
        assert volumes.refusal("POST", path, json=body)[0] == 422, body
    assert volumes.refusal("POST", path, json={"tool": "undo", "expected": 0})[0] == 409
    game = volumes.step(game, "box", 40, BOX)
    assert not game["steps"][-1]["valid"] and "7 slices" in game["steps"][-1]["error"]
    assert volumes.refusal("GET", f"volumes/{game['game']}/slices/7")[0] == 404
    assert volumes.refusal("POST", f"volumes/{game['game']}/look", json={"slice": 7})[0] == 404
    assert volumes.refusal("GET", "games/nothing")[0] == 404
    assert volumes.refusal("GET", f"games/{game['game']}/mask", params={"kind": "seg"})[0] == 422


def test_planes_across_the_slices_show_image_and_mask(volumes) -> None:
    game = volumes.step(volumes.begin(), "box", 2, BOX)
    made = volumes.ask("GET", f"volumes/{game['game']}/planes", params={"x": 0.5, "y": 0.5})
    coronal, sagittal = made["planes"]
    assert (coronal["name"], sagittal["name"]) == ("coronal", "sagittal")
    assert coronal["along"] == "up" and coronal["aspect"] == 5

    def decoded(text: str) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))

    case = tube()
    assert (decoded(coronal["image"]) == case.image[::-1, 20]).all()
    assert (decoded(sagittal["image"]) == case.image[::-1, :, 30]).all()
    mask = volumes.mask(game, 2)
    assert (decoded(coronal["mask"])[7 - 1 - 2] > 0).tolist() == mask[20].tolist()
    assert (decoded(sagittal["mask"])[7 - 1 - 2] > 0).tolist() == mask[:, 30].tolist()
    assert (decoded(coronal["mask"]) > 0).any(axis=1).tolist() == [False] * 4 + [True] + [False] * 2


def test_neighbours_are_encoded_ahead(open_page) -> None:
    image = np.random.default_rng(0).integers(0, 255, (60, 32, 32), np.uint8)
    noise = VolumeCase("noise", image, np.zeros(image.shape, bool), "x", truth_known=False)
    service, client = open_page(volumes=[[noise]])
    volumes, counters = Volumes(client), service.segmenter.served.cache.counters
    game = volumes.begin()
    assert counters.encodes == 0
    assert volumes.ask("POST", f"volumes/{game['game']}/look", json={"slice": 30})["ready"]
    until = time.monotonic() + 20
    while counters.encodes < 2 * REACH + 1 and time.monotonic() < until:
        time.sleep(0.01)
    assert counters.encodes == 2 * REACH + 1
    volumes.step(game, "box", 31, BOX)
    assert counters.encodes == 2 * REACH + 1
    volumes.step(volumes.begin(), "box", 3, BOX)  # further away
    assert counters.encodes == 2 * REACH + 2


def test_games_are_bounded_in_number_and_bytes(open_page) -> None:
    _, client = open_page(volumes=[[tube()]])
    volumes = Volumes(client)
    first = volumes.begin()
    for _ in range(4):
        volumes.begin()
    assert volumes.refusal("GET", f"games/{first['game']}")[0] == 404


def test_a_volume_that_is_too_large_for_memory_is_refused(open_page) -> None:
    _, client = open_page(volumes=[[tube()]], volume_bytes=20_000)
    volumes = Volumes(client)
    game = volumes.begin()
    steps = 0
    while True:
        body = {"tool": "box", "slice": 3, "at": BOX, "expected": steps}
        answer = client.http.post(f"/api/games/{game['game']}/steps", json=body)
        if answer.status_code != 200:
            break
        steps += 1
    assert answer.status_code == 507 and "MiB" in answer.json()["detail"] and steps < 20
    volumes = Volumes(open_page(volumes=[[tube()]], volume_bytes=1000)[1])
    assert volumes.refusal("POST", "games", json={"place": "v0", "index": 0})[0] == 507


def test_specs_of_volumes_among_the_cases_are_played_as_volumes(small_cases) -> None:
    assert PageOptions().volume_specs == ["phantoms-volume"]
    mixed = PageOptions(cases=["samples", "phantoms-volume", [tube()], small_cases])
    assert mixed.image_cases == ["samples", small_cases]
    assert [type(one) for one in mixed.volume_specs] == [str, list]
    with pytest.raises(MedSegError, match="scan_voxels"):
        PageOptions(scan_voxels=0)


def test_phantoms_are_listed_and_played(open_page) -> None:
    volumes = Volumes(open_page()[1])
    places = volumes.ask("GET", "setup")["volumes"]["places"]
    assert places[0]["title"] == "phantoms-volume · train"
    listed = volumes.ask("GET", "cases", params={"place": "v0", "count": 2})
    assert listed["total"] == 12_000 and "liver" in listed["cases"][0]["target"]
    content = volumes.client.http.get("/api/thumbnail", params={"place": "v0", "index": 0})
    assert content.headers["content-type"] == "image/jpeg"
    results = volumes.ask("GET", "cases", params={"place": "v0", "count": 2, "find": "000003-1"})
    assert [case["index"] for case in results["cases"]] == [19]


# own scans ----------------------------------------------------------------------------------------
def test_a_nifti_is_opened_and_its_mask_lies_on_its_grid(volumes, nifti, tmp_path) -> None:
    made = volumes.open([(".nii.gz", nifti.read_bytes())], modality="CT", window="lung")
    assert made.pop("key").startswith("scan-")
    assert made == {"place": "own-scans", "index": 0, "left_out": {}}
    game = volumes.begin(0, "own-scans")
    assert game["case"]["truth_known"] is False and "dice" not in game
    shape = tuple(game["case"][side] for side in ("depth", "height", "width"))
    assert shape == piece()[0].shape and game["case"]["axis"] == "axial"
    assert volumes.pixels(f"volumes/{game['game']}/slices/2").shape == shape[1:]
    game = volumes.step(volumes.step(game, "box", 2, [0.1, 0.2, 0.6, 0.8]), "propagate")
    planes = volumes.ask("GET", f"volumes/{game['game']}/planes")["planes"]
    assert [plane["along"] for plane in planes] == ["up", "up"]
    assert volumes.step(game, "stop")["done"]
    answer = volumes.client.http.get(f"/api/games/{game['game']}/mask")
    assert 'filename="mask.nii.gz"' in answer.headers["content-disposition"]
    (tmp_path / "mask.nii.gz").write_bytes(answer.content)
    mask, scan = nibabel.load(tmp_path / "mask.nii.gz"), nibabel.load(nifti)
    assert mask.shape == scan.shape and np.abs(mask.affine - scan.affine).max() < 1e-4
    for code in ("qform_code", "sform_code"):
        assert mask.header[code] == scan.header[code]
    voxels = np.asarray(mask.dataobj) > 0
    assert voxels.sum() == game["voxels"]
    # The mask's slice 2 in the axial view, found through the two affines.
    shown = nibabel.as_closest_canonical(mask).get_fdata()[::-1, ::-1].transpose(2, 1, 0) > 0
    assert (shown[2] == (volumes.mask(game, 2))).all()


def test_a_dicom_folder_gives_a_seg_without_a_name(volumes, tmp_path, record) -> None:
    folder = tmp_path / SECRET
    files = dicom(folder)
    made = volumes.open([*files, (".dcm", b"not DICOM")])
    assert made["left_out"] == {"files that are not DICOM": 1}
    game = volumes.begin(0, "own-scans")
    assert game["formats"] == ["nifti", "seg"] and game["case"]["modality"] == "CT"
    empty = volumes.refusal("GET", f"games/{game['game']}/mask", params={"kind": "seg"})
    assert empty[0] == 422 and "empty" in empty[1]
    game = volumes.step(game, "box", 2, [0.1, 0.2, 0.6, 0.8])
    answer = volumes.client.http.get(f"/api/games/{game['game']}/mask", params={"kind": "seg"})
    (tmp_path / "mask.dcm").write_bytes(answer.content)
    data = dcmread(tmp_path / "mask.dcm")
    assert data.Modality == "SEG" and str(data.PatientName) == "" and data.PatientID == ""
    assert b"Mueller" not in answer.content and b"4711" not in answer.content
    again, _ = read_series(folder, "lung", tmp_path / "mask.dcm")
    assert (again.mask[2] == (volumes.mask(game, 2))).all()
    assert again.mask.sum() == game["voxels"]
    assert "Mueller" not in str([volumes.ask("GET", f"games/{game['game']}"), made])
    written = [p for p in record.rglob("*") if p.is_file()] if record.exists() else []
    assert not [path for path in written if b"Mueller" in path.read_bytes()]


def test_files_that_cannot_be_used_are_refused_and_removed(
    volumes, nifti, tmp_path, temporary
) -> None:
    whole = nifti.read_bytes()
    assert "ends too early" in volumes.unusable([(".nii.gz", whole[: len(whole) // 2])])
    assert "nothing in it is a scan" in volumes.unusable([(".dcm", b"%PDF-1.4" * 40)])
    assert "one volume file" in volumes.unusable([(".nii.gz", whole)] * 2)
    assert "no file" in volumes.unusable([])
    assert "window" in volumes.unusable([(".nii.gz", whole)], window="much")
    four = tmp_path / "four.nii"
    nibabel.save(nibabel.Nifti1Image(np.random.rand(6, 6, 4, 3), np.eye(4)), four)
    assert "fourth axis" in volumes.unusable([(".nii", four.read_bytes())])
    nan = tmp_path / "nan.nii"
    nibabel.save(nibabel.Nifti1Image(np.full((6, 6, 4), np.nan), np.eye(4)), nan)
    assert "NaN" in volumes.unusable([(".nii", nan.read_bytes())])
    files = dicom(tmp_path / "series")
    assert "missing" in volumes.unusable(files[:2] + files[3:])
    write_series(tmp_path / "other", piece()[0], series=2)
    two = [*files, *((".dcm", p.read_bytes()) for p in (tmp_path / "other").iterdir())]
    words = volumes.unusable(two)
    assert "2 series" in words and "in the field below" in words and str(tmp_path) not in words
    uid = dcmread(tmp_path / "other" / "IM03").SeriesInstanceUID
    assert volumes.open(two, series=uid)["index"] == 0
    assert "medseg-scans" not in words
    (root,) = temporary.glob("medseg-scans-*")
    assert len(list(root.iterdir())) == 1  # of the one that is open


def test_uploads_are_bounded(open_page, nifti, temporary) -> None:
    size = nifti.stat().st_size
    service, client = open_page(scan_bytes=2 * size, scan_files=3, scan_voxels=12_000)
    volumes, part = Volumes(client), nifti.read_bytes()
    assert "voxels" in volumes.unusable([(".nii.gz", part)])
    files = dicom(temporary.parent / "series")
    assert "voxels" in volumes.unusable(files[:3])
    id = volumes.ask("POST", "volumes/scans")["upload"]

    def put(file: int, offset: int, content: bytes, kind: str = ".dcm") -> tuple[int, str]:
        query = {"id": id, "file": file, "offset": offset, "kind": kind}
        return volumes.refusal("PUT", "volumes/upload", params=query, content=content)

    assert put(3, 0, b"x")[0] == 413 and "3 files" in put(3, 0, b"x")[1]
    assert put(0, 5, b"x")[0] == 409
    assert put(0, 0, b"x" * (2 * size + 1))[0] == 413
    assert put(0, 0, b"x", "../evil")[0] == 422 and put(0, 0, b"x", ".exe")[0] == 422
    assert not [p for p in temporary.rglob("*") if p.is_file()]
    volumes.ask("DELETE", f"volumes/scans/{id}")
    assert put(0, 0, b"x")[0] == 404
    again = volumes.ask("POST", "volumes/scans")["upload"]
    volumes.ask("POST", "volumes/scans")  # a further one gives the first up
    assert volumes.refusal("POST", f"volumes/scans/{again}", json={"target": "x"})[0] == 404
    service.extensions[0].stop()
    assert not list(temporary.glob("medseg-scans-*"))


def test_scans_are_their_owners_alone_and_can_be_removed(open_page, nifti, temporary) -> None:
    keys = {"anna": "anna-key-0123456789", "ben": "ben-key-01234567890"}
    _, client = open_page(api_keys=ApiKeys(keys))
    anna, ben = (Volumes(client, {"Authorization": f"Bearer {key}"}) for key in keys.values())
    id = anna.send([(".nii.gz", nifti.read_bytes())])
    assert ben.refusal("POST", f"volumes/scans/{id}", json={"target": "x"})[0] == 404
    query = {"id": id, "file": 0, "offset": nifti.stat().st_size, "kind": ".nii.gz"}
    assert ben.refusal("PUT", "volumes/upload", params=query, content=b"x")[0] == 404
    made = anna.ask("POST", f"volumes/scans/{id}", json={"target": "lung"})
    game = anna.begin(made["index"], made["place"])
    key = game["case"]["key"]
    assert anna.ask("GET", "setup")["volumes"]["places"][-1]["title"] == "your own scans"
    assert "own-scans" not in [p["name"] for p in ben.ask("GET", "setup")["volumes"]["places"]]
    assert ben.refusal("POST", "games", json={"place": "own-scans", "key": key})[0] == 404
    assert ben.refusal("GET", f"volumes/{game['game']}/slices/0")[0] == 404
    assert ben.refusal("DELETE", f"volumes/scans/{key}")[0] == 404
    assert client.http.get("/api/setup").status_code == 401
    anna.ask("DELETE", f"volumes/scans/{key}")
    assert anna.refusal("GET", f"games/{game['game']}")[0] == 404
    assert not [p for p in temporary.rglob("*") if p.is_file()]
