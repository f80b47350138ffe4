"""Indexing ends for any bytes in the files, names defects, and what it leaves can be read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from defect_corpus import (
    biomedparse_defects,
    coco_defects,
    cvat_defects,
    folder_defects,
    labelme_defects,
    ome_defects,
    parquet_defects,
    wsi_defects,
    yolo_defects,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_gym.cases.files import index_dataset
from medseg_gym.cases.files.dataset_formats import dataset_format_of

DATA: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "biomedparse": ("biomedparse", biomedparse_defects.write, ""),
    "parquet": ("parquet", lambda root: parquet_defects.write(root, parquet_defects.rows()), ""),
    "binary": ("folder", folder_defects.write, folder_defects.POLYP),
    "index": (
        "folder",
        lambda root: folder_defects.write(root, folder_defects.classes),
        folder_defects.INDEX,
    ),
    "coco": ("coco", coco_defects.write, ""),
    "yolo": ("yolo", yolo_defects.write, ""),
    "labelme": ("labelme", labelme_defects.write, ""),
    "cvat": ("cvat", cvat_defects.write, ""),
    "ome": ("ome", ome_defects.write, ""),
    "wsi": ("wsi", wsi_defects.write, "?tile=128"),
}


@pytest.mark.parametrize("kind", DATA)
@settings(max_examples=40)
@given(
    which=st.integers(0, 99),
    at=st.floats(0, 1),
    removed=st.sampled_from([0, 1, 7, 10**9]),
    added=st.binary(max_size=12),
)
def test_damaged_bytes_are_defects_or_cases(kind, which, at, removed, added, tmp_path_factory):
    name, write, options = DATA[kind]
    root = tmp_path_factory.mktemp("data")
    write(root)
    files = sorted(file for file in root.rglob("*") if file.is_file())
    file = files[which % len(files)]
    raw = file.read_bytes()
    start = int(at * len(raw))
    file.write_bytes(raw[:start] + added + raw[start + removed :])
    os.utime(file, (1, 1))
    data = index_dataset(dataset_format_of(name), f"{root}{options}")
    whole = len(data.records)
    data.examine()
    assert len(data.records) + len({d.key for d in data.bad if d.key}) >= whole
    for record in data.records:
        assert data.case(record).key == record.key
