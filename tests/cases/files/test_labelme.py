"""Files of LabelMe: polygons, circles, boxes and masks by label."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from defect_corpus.images import encoded
from defect_corpus.labelme_defects import FIRST, SQUARE, write
from opening import open_healthy

from medseg_gym.cases import load_cases
from medseg_gym.cases.labelme import LabelMeFormat
from medseg_gym.cases.writers import convert_cases


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set, beside which the index lies."""
    write(tmp_path / "data")
    return tmp_path / "data"


def edited(root: Path, **fields: Any) -> None:
    file = root / FIRST
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def first_mask(root: Path, *shapes: dict[str, Any], options: str = "") -> np.ndarray:
    edited(root, shapes=[{"label": "x", **shape} for shape in shapes])
    data = open_healthy(LabelMeFormat, root, options)
    return data.case(data.split("train")[0]).mask


def test_a_polygon_covers_the_pixels_whose_centres_it_holds(root):
    mask = np.zeros((20, 24), bool)
    mask[4:12, 5:15] = True
    assert np.array_equal(first_mask(root, {"points": SQUARE}), mask)
    box = {"points": [SQUARE[2], SQUARE[0]], "shape_type": "rectangle"}
    assert np.array_equal(first_mask(root, box, options="boxes=1"), mask)


def test_a_circle_is_given_by_its_centre_and_a_point_on_it(root):
    circle = {"points": [[10, 10], [10, 15]], "shape_type": "circle"}
    rows, columns = np.mgrid[:20, :24] + 0.5
    disc = (rows - 10) ** 2 + (columns - 10) ** 2 <= 25
    assert np.array_equal(first_mask(root, circle), disc)


def test_a_mask_lies_in_its_box(root):
    part = np.array([[1, 0, 1], [0, 1, 0]], np.uint8)
    text = base64.b64encode(encoded(part)).decode()
    mask = first_mask(root, {"points": [[3, 5], [5, 6]], "shape_type": "mask", "mask": text})
    assert np.array_equal(mask[5:7, 3:6], part > 0) and mask.sum() == 3


def test_shapes_of_one_group_stay_together_when_apart(root):
    moved = [[x + 6, y + 6] for x, y in SQUARE[:3]]
    shapes = [
        {"label": "cell", "points": SQUARE, "group_id": 1},
        {"label": "cell", "points": moved, "group_id": 1},
        {"label": "cell", "points": moved, "group_id": None},
    ]
    edited(root, shapes=shapes)
    data = open_healthy(LabelMeFormat, root, "instances=apart")
    keys = [record.key for record in data.split("train")][:2]
    assert keys == ["train/a0.png#cell/group 1", "train/a0.png#cell/2"]


@pytest.mark.parametrize("path", ["..\\train\\a0.png", "/home/me/a0.png", "C:\\data\\a0.png"])
def test_images_are_found_whatever_machine_they_were_drawn_on(root, path):
    edited(root, imagePath=path)
    assert len(load_cases(f"labelme:{root}", "train")) == 3
    assert len(load_cases(f"labelme:{root / FIRST}", "all")) == 1


def test_shapes_removed_after_writing_are_missed(tmp_path):
    root = tmp_path / "out"
    convert_cases("samples", "labelme", root)
    file = sorted((root / "test").glob("*.json"))[0]
    document = json.loads(file.read_text())
    before = len(open_healthy(LabelMeFormat, root).records)
    del document["shapes"][0]
    file.write_text(json.dumps(document))
    data = open_healthy(LabelMeFormat, root)
    assert "changed since it was written" in "\n".join(map(str, data.defects))
    assert len(data.records) in (before, before - 1)
