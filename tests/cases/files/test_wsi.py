"""Whole slides: tiles on which something was drawn are cases."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from defect_corpus.wsi_defects import FIRST, feature, slide, write
from opening import open_healthy

from medseg_gym.cases import CaseError, load_cases
from medseg_gym.cases.wsi import WsiFormat

WIDE = [[100, 20], [200, 20], [200, 120], [100, 120], [100, 20]]
HOLE = [[140, 40], [160, 40], [160, 60], [140, 60], [140, 40]]


@pytest.fixture(params=["openslide", "tiffslide"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One of the libraries, the other one hidden; tiffslide is not part of the extra."""
    pytest.importorskip(request.param)
    other = {"openslide": "tiffslide", "tiffslide": "openslide"}[request.param]
    monkeypatch.setitem(sys.modules, other, None)
    return request.param


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder beside which the index lies."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def whole_mask(data, slide: str, tile: int, height: int, width: int) -> np.ndarray:
    """The tiles of a slide put together."""
    mask = np.zeros((height, width), bool)
    for record in data.records:
        if record.group == slide:
            row, column = record.place["at"]
            part = data.case(record).mask
            top, left = row * tile, column * tile
            mask[top : top + part.shape[0], left : left + part.shape[1]] = part
    return mask


def test_tiles_put_together_are_the_polygons(root, reader):
    image = write(root, {**feature(), "geometry": {"type": "Polygon", "coordinates": [WIDE, HOLE]}})
    data = open_healthy(WsiFormat, root, "tile=64&min_area=1")
    wanted = np.zeros((200, 300), bool)
    wanted[20:120, 100:200] = True
    wanted[40:60, 140:160] = False
    assert np.array_equal(whole_mask(data, "a.tif", 64, 200, 300), wanted)
    record = data.records[0]
    assert record.key == "a.tif#0000-0001/Tumor" and record.spacing == (0.0005, 0.0005)
    assert np.array_equal(data.case(record).image, image[:64, 64:128])
    assert data.left_out["tiles on which nothing is drawn"] == 2 * 20 - len(data.records)


def test_a_level_or_micrometres_scale_tiles_and_polygons(root, reader):
    image = write(root, feature(WIDE))
    half = np.zeros((100, 150), bool)
    half[10:60, 50:100] = True
    for options in ("level=1", "mpp=1"):
        data = open_healthy(WsiFormat, root, f"tile=128&{options}&min_area=1")
        assert np.array_equal(whole_mask(data, "a.tif", 128, 100, 150), half)
        record = data.records[0]
        assert record.spacing == (0.001, 0.001) and record.size == (100, 128)
        assert np.array_equal(data.case(record).image, image[::2, ::2][:100, :128])
    scaled = open_healthy(WsiFormat, root, "tile=40&mpp=2&min_area=1")
    assert whole_mask(scaled, "a.tif", 40, 50, 75).sum() == 25 * 25


def test_classes_are_targets_and_may_be_left_out(root):
    write(
        root, feature(WIDE), feature(HOLE, "Artifact"), {**feature(), "properties": {"name": "x"}}
    )
    data = open_healthy(WsiFormat, root, "tile=512&labels=Tumor:tumour in histology,Artifact:-")
    assert data.targets == ("tumour in histology", "x")
    assert sum("left out (labels=" in reason for reason in data.left_out) == 1
    assert {record.modality for record in data.records} == {"microscopy"}


def test_one_slide_and_splits_by_folder(root):
    for split in ("train", "test"):
        (root / split).mkdir()
        slide(root / split / "a.svs")
        (root / split / FIRST).write_text(json.dumps({"features": [feature()]}))
    assert [len(load_cases(f"wsi:{root}", split)) for split in ("train", "test")] == [1, 1]
    assert len(load_cases(f"wsi:{root / 'train/a.svs'}", "all")) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [("tile=3", "from 16 to 8192"), ("level=-1", "from 0 on"), ("mpp=0", "positive micrometres")],
)
def test_wrong_options_are_named(root, options, words):
    write(root)
    with pytest.raises(CaseError, match=words):
        load_cases(f"wsi:{root}?{options}", "train")


def test_without_a_reader_the_line_to_install_one_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "tiffslide", None)
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(CaseError, match=r"needs openslide; pip install 'medseg-gym\[wsi\]'"):
        load_cases(f"wsi:{root}", "train")
