"""Data sets of YOLO: classes are targets, polygons are in fractions of the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from defect_corpus.yolo_defects import DATA, FIRST, SQUARE, write
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from opening import open_dataset, open_healthy

from medseg_gym.cases import CaseError, load_cases
from medseg_gym.cases.drawn import outlines, single_outlines
from medseg_gym.cases.drawn.shapes import draw_shape, polygon
from medseg_gym.cases.writers import convert_cases
from medseg_gym.cases.yolo import YoloFormat


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set, beside which the index lies."""
    write(tmp_path / "data")
    return tmp_path / "data"


def test_a_polygon_covers_the_pixels_whose_centres_it_holds(root):
    data = open_healthy(YoloFormat, root)
    record = data.split("train")[0]
    mask = np.zeros((20, 24), bool)
    mask[4:12, 5:14] = True  # centres from 4.8 to 14.4 of 24, 4 to 12 of 20
    assert np.array_equal(data.case(record).mask, mask)
    assert (record.key, record.target) == ("images/train/a0.png#lung", "lung")
    assert data.case(data.split("val")[0]).mask.any()


def test_lines_of_a_class_are_one_case_unless_apart(root):
    (root / FIRST).write_text(SQUARE + "1 0.1 0.1 0.2 0.1 0.2 0.3\n" + "0 0.7 0.7 0.9 0.7 0.9 0.9")
    data = open_healthy(YoloFormat, root)
    assert [record.target for record in data.records[:2]] == ["lung", "heart"]
    apart = open_healthy(YoloFormat, root, "instances=apart")
    assert len(apart.records) == len(data.records) + 1
    first, third = (apart.case(apart.records[at]).mask for at in (0, 2))
    assert np.array_equal(data.case(data.records[0]).mask, first | third)


@pytest.mark.parametrize(
    "data",
    [
        DATA.replace("images/train", "../images/train"),
        DATA.replace("val:", "valid:"),
        DATA.replace("images/train", "[images/train]").replace("{0: lung, 1: heart}", "[lung]"),
        "path: .\n" + DATA.partition("\n")[2],
    ],
)
def test_the_ways_in_which_exports_write_data_yaml(root, data):
    (root / "data.yaml").write_text(data)
    assert len(open_healthy(YoloFormat, root).records) == 4
    assert len(load_cases(f"yolo:{root / 'data.yaml'}", "train")) == 3


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        ("train: [images", "expected ',' or '\\]'"),
        ("- train", "is an array, expected keys: names, train"),
        ("", r"empty \(0 bytes\)"),
        ("train: images/train\n", "'names' is null, expected names of the classes"),
        ("train: images/train\nnames: {lung: 0}\n", "has 'lung': 0, expected NUMBER: NAME"),
        ("names: [lung]\n", "names no images: 'train', 'val' and 'test' are missing"),
        ("names: &a [*a]\ntrain: images/train\n", "expected NUMBER: NAME"),
    ],
)
def test_a_broken_data_yaml_is_refused(root, data, cause):
    (root / "data.yaml").write_text(data)
    with pytest.raises(CaseError, match=rf"data.yaml: .*{cause}"):
        load_cases(f"yolo:{root}", "train")


def test_a_folder_without_data_yaml_is_named(root):
    (root / "data.yaml").unlink()
    (defect,) = open_dataset(YoloFormat, root).defects
    assert "has no data.yaml" in defect.cause


def test_labels_edited_after_writing_are_read_as_they_are(tmp_path):
    root = tmp_path / "out"
    convert_cases("samples", "yolo", root)
    names = yaml.safe_load((root / "data.yaml").read_text(encoding="utf-8"))["names"]
    assert set(names.values()) == set(load_cases(f"yolo:{root}", "train").targets)
    file = sorted((root / "labels/test").glob("*.txt"))[0]
    before = open_healthy(YoloFormat, root).split("test")
    file.write_text(file.read_text().splitlines()[0] + "\n")
    data = open_healthy(YoloFormat, root)
    assert "changed since it was written" in "\n".join(map(str, data.defects))
    new = {record.key for record in data.split("test")} - {record.key for record in before}
    assert len(new) == 1 and f"images/test/{file.stem}.png#" in new.pop()


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_outlines_fill_to_the_mask_they_are_of(mask):
    height, width = mask.shape
    parts = [draw_shape(polygon(rings), height, width) for rings in outlines(mask)]
    assert np.array_equal(sum(parts, np.zeros(mask.shape, int)), mask)
    parts = [draw_shape(polygon([one]), height, width) for one in single_outlines(mask)]
    assert np.array_equal(sum(parts, np.zeros(mask.shape, int)), mask)
