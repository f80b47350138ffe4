"""XML of CVAT for images: polygons, masks, ellipses and boxes by label."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from defect_corpus.cvat_defects import SQUARE, write
from opening import open_healthy

from medseg_gym.cases import CaseError, load_cases
from medseg_gym.cases.cvat import CvatFormat
from medseg_gym.cases.writers import convert_cases


def first_mask(root: Path, drawn: str, options: str = "") -> np.ndarray:
    write(root, drawn)
    data = open_healthy(CvatFormat, root, options)
    return data.case(data.split("train")[0]).mask


def test_a_polygon_covers_the_pixels_whose_centres_it_holds(tmp_path):
    mask = np.zeros((20, 24), bool)
    mask[4:12, 5:15] = True
    assert np.array_equal(first_mask(tmp_path / "data", SQUARE), mask)


def test_a_mask_lies_in_its_box_row_by_row(tmp_path):
    runs = '<mask label="x" rle="1, 2, 2, 1" left="5" top="4" width="3" height="2"/>'
    mask = first_mask(tmp_path / "data", runs)
    assert np.array_equal(mask[4:6, 5:8], [[0, 1, 1], [0, 0, 1]]) and mask.sum() == 3


@pytest.mark.parametrize(("rotation", "shape"), [(0, (8, 10)), (90, (10, 8)), (180, (8, 10))])
def test_boxes_and_ellipses_turn_about_their_middle(tmp_path, rotation, shape):
    box = f'<box label="x" xtl="5" ytl="4" xbr="15" ybr="12" rotation="{rotation}"/>'
    mask = first_mask(tmp_path / "data", box, "boxes=1")
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    assert (len(rows), len(columns), mask.sum()) == (*shape, 80)
    ellipse = f'<ellipse label="x" cx="10" cy="8" rx="5" ry="4" rotation="{rotation}"/>'
    mask = first_mask(tmp_path / "more", ellipse)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    assert (len(rows), len(columns)) == shape


def test_a_subset_says_the_split(tmp_path):
    write(tmp_path / "data")
    file = tmp_path / "data/train.xml"
    text = file.read_text().replace('name="a0.png"', 'name="a0.png" subset="Test"')
    file.write_text(text)
    (tmp_path / "data/images/test").mkdir()
    (tmp_path / "data/images/train/a0.png").rename(tmp_path / "data/images/test/a0.png")
    data = open_healthy(CvatFormat, tmp_path / "data")
    assert len(data.split("test")) == 1 and len(data.split("train")) == 2


def test_what_is_written_declares_its_labels(tmp_path):
    convert_cases("samples", "cvat", tmp_path)
    root = ElementTree.parse(tmp_path / "test.xml").getroot()
    names = {one.text for one in root.iterfind("meta/task/labels/label/name")}
    assert names == {one.get("label") for one in root.iterfind("image/mask")}
    assert len(root.findall("image/mask")) == len(load_cases("samples", "test"))
    for one in root.iterfind("image"):
        assert (tmp_path / "images" / one.get("name")).is_file()


def test_without_defusedxml_the_line_to_install_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "defusedxml", None)
    with pytest.raises(CaseError, match=r"needs defusedxml; pip install 'medseg-gym\[cvat\]'"):
        load_cases(f"cvat:{tmp_path}", "train")
