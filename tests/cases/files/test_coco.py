"""COCO files: masks are those of pycocotools, categories are targets."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from defect_corpus.coco_defects import TRAIN, write
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from opening import open_healthy
from pycocotools import mask as masks
from pycocotools.coco import COCO

from medseg_gym.cases import CaseError, load_cases
from medseg_gym.cases.check import check_cases
from medseg_gym.cases.coco import CocoFormat
from medseg_gym.cases.coco.run_lengths import counts_of, draw_runs
from medseg_gym.cases.writers import convert_cases


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set, beside which the index lies."""
    write(tmp_path / "data")
    return tmp_path / "data"


def official(file: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(file))


def official_mask(coco: COCO, annotation: dict[str, Any]) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy, about pycocotools
        return coco.annToMask(annotation)


def edited(root: Path, edit: Any) -> None:
    document = json.loads((root / TRAIN).read_text())
    edit(document)
    (root / TRAIN).write_text(json.dumps(document))


def two_of_lung(document: dict[str, Any]) -> None:
    second = {"id": 7, "image_id": 0, "category_id": 1, "segmentation": [[16, 13, 22, 13, 22, 19]]}
    document["annotations"].append(second)
    runs = {"id": 8, "image_id": 0, "category_id": 2, "iscrowd": 1}
    runs["segmentation"] = {"size": [20, 24], "counts": [104, 8, 368]}
    document["annotations"].append(runs)
    document["categories"].append({"id": 2, "name": "polyp"})
    document["images"][0]["patient"] = "p1"


def test_masks_are_those_of_pycocotools(root):
    edited(root, two_of_lung)
    source = load_cases(f"coco:{root}?crowd=1&instances=apart", "train")
    coco = official(root / TRAIN)
    assert len(source) == 5
    for case in source:
        number = int(case.key.rpartition("/")[2])
        assert np.array_equal(case.mask, official_mask(coco, coco.anns[number])), case.key
    assert source.left_out == {}


def test_objects_of_a_category_are_one_case_unless_apart(root):
    edited(root, two_of_lung)
    data = open_healthy(CocoFormat, root)
    assert [record.key for record in data.split("train")] == [
        "train/a0.png#lung",
        "train/a1.png#lung",
        "train/a2.png#lung",
    ]
    assert data.left_out == {"crowds, iscrowd 1 (crowd=1 takes them)": 1}
    assert data.split("train")[0].group == "p1" and data.split("train")[1].group == "train/a1.png"
    apart = open_healthy(CocoFormat, root, "instances=apart")
    first, second = (apart.case(one).mask for one in apart.split("train")[:2])
    assert (data.case(data.split("train")[0]).mask == (first | second)).all()
    assert first.any() and second.any()


def test_labels_get_words_or_are_left_out(root):
    edited(root, two_of_lung)
    options = "labels=lung:left lung in chest CT,polyp:-&crowd=1&spacing=0.5,0.7"
    data = open_healthy(CocoFormat, root, options)
    assert data.targets == ("left lung in chest CT",)
    assert data.records[0].modality == "CT" and data.records[0].spacing == (0.5, 0.7)
    assert data.left_out == {"objects whose label is to be left out (labels= changes that)": 1}


@pytest.mark.parametrize("file", ["annotations/instances_train.json", "_annotations.coco.json"])
def test_one_file_is_a_data_set(root, file):
    if not (root / file).exists():
        (root / TRAIN).rename(root / "train" / file)
        file = f"train/{file}"
    report = check_cases(f"coco:{root / file}")
    assert len(report.seen) == 3 and not report.bad


def test_images_may_lie_elsewhere(root):
    (root / "train").rename(root.parent / f"{root.name}-images")
    with pytest.raises(CaseError, match=r"a0.png' is missing; images=FOLDER"):
        load_cases(f"coco:{root / TRAIN}", "train")
    source = load_cases(f"coco:{root / TRAIN}?images=../{root.name}-images", "train")
    assert source[0].mask.sum() == 80


def test_files_of_other_tasks_are_passed_over(root):
    (root / "annotations/captions_train.json").write_text('{"images": [], "annotations": []}')
    (root / "config.json").write_text("{}")
    data = open_healthy(CocoFormat, root)
    assert len(data.records) == 4
    notes = "\n".join(map(str, data.defects))
    assert "another task than instances" in notes and "is no COCO file" in notes


def test_official_tools_read_what_is_written(tmp_path):
    root = tmp_path / "out"
    convert_cases("samples", "coco", root)
    coco = official(root / "annotations/instances_test.json")
    wanted = load_cases("samples", "test")
    assert len(coco.anns) == len(wanted)
    for annotation, case in zip(coco.anns.values(), wanted, strict=True):
        assert np.array_equal(official_mask(coco, annotation), case.mask)
        assert coco.cats[annotation["category_id"]]["name"] == case.target
        assert (root / "test" / coco.imgs[annotation["image_id"]]["file_name"]).is_file()


@settings(max_examples=60)
@given(
    arrays.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))),
)
def test_run_lengths_are_those_of_pycocotools(mask):
    text = masks.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    assert np.array_equal(draw_runs(counts_of(text, "", ""), *mask.shape, "", ""), mask)


def test_without_pycocotools_the_line_to_install_it_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(CaseError, match=r"needs pycocotools; pip install 'medseg-gym\[coco\]"):
        open_healthy(CocoFormat, root)
