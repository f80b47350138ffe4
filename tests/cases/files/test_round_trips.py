"""Cases written and read back are equal, also after a kill in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from medseg_gym.cases import SPLITS, Case, CaseError, load_cases
from medseg_gym.cases.biomedparse import BiomedParseFormat
from medseg_gym.cases.coco import CocoFormat
from medseg_gym.cases.cvat import CvatFormat
from medseg_gym.cases.files import FileCaseSource, index_dataset
from medseg_gym.cases.labelme import LabelMeFormat
from medseg_gym.cases.ome import OmeFormat
from medseg_gym.cases.parquet import ParquetFormat
from medseg_gym.cases.writers import WRITERS, CaseWriter, convert_cases, parquet
from medseg_gym.cases.writers.biomedparse import BiomedParseWriter
from medseg_gym.cases.writers.coco import CocoWriter
from medseg_gym.cases.writers.cvat import CvatWriter
from medseg_gym.cases.writers.labelme import LabelMeWriter
from medseg_gym.cases.writers.ome import OmeWriter
from medseg_gym.cases.writers.parquet import ParquetWriter
from medseg_gym.cases.writers.yolo import YoloWriter
from medseg_gym.cases.yolo import YoloFormat

FORMATS = {
    "biomedparse": (BiomedParseFormat, BiomedParseWriter),
    "parquet": (ParquetFormat, ParquetWriter),
    "coco": (CocoFormat, CocoWriter),
    "yolo": (YoloFormat, YoloWriter),
    "labelme": (LabelMeFormat, LabelMeWriter),
    "cvat": (CvatFormat, CvatWriter),
    "ome": (OmeFormat, OmeWriter),
}
SLOW = ("labelme", "cvat", "ome")
QUICK = pytest.mark.parametrize(
    "to", [pytest.param(to, marks=[pytest.mark.slow] * (to in SLOW)) for to in WRITERS]
)
EVERY = pytest.mark.parametrize("to", WRITERS)


def assert_equal(read: Case, wanted: Case) -> None:
    for name in ("key", "target", "modality", "spacing", "group", "source", "synthetic"):
        assert getattr(read, name) == getattr(wanted, name), name
    assert np.array_equal(read.image, wanted.image) and np.array_equal(read.mask, wanted.mask)
    assert read.content_hash == wanted.content_hash


@QUICK
@pytest.mark.parametrize(
    ("spec", "limit"),
    [("samples", None), ("samples:multi-part", None), ("phantoms", 24), ("phantoms:hard", 20)],
)
def test_samples_and_phantoms_come_back_equal(tmp_path, to, spec, limit):
    written = convert_cases(spec, to, tmp_path / "out", limit)
    assert written
    for split, count in written.items():
        back, wanted = load_cases(f"{to}:{tmp_path / 'out'}", split), load_cases(spec, split)
        assert list(back.keys) == list(wanted.keys[:count])
        for read, case in zip(back, wanted, strict=limit is None):
            assert_equal(read, case)
        assert not back.defects
    assert convert_cases(spec, to, tmp_path / "out", limit) == written, "all done: nothing to do"


def draw_cases() -> st.SearchStrategy[Case]:
    sides = st.integers(1, 9)
    words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
    spacing = st.floats(1e-3, 1e3, allow_nan=False)

    def build(height: int, width: int) -> st.SearchStrategy[Case]:
        return st.builds(
            Case,
            key=words,
            image=arrays.arrays(np.uint8, (height, width, 3)),
            mask=arrays.arrays(np.bool_, (height, width)),
            target=words.filter(lambda text: bool(text.strip())),
            modality=st.sampled_from(["CT", "MRI", "", "fundus"]),
            spacing=st.none() | st.tuples(spacing, spacing),
            group=words,
            source=words,
            synthetic=st.booleans(),
        )

    return st.tuples(sides, sides).flatmap(lambda size: build(*size))


@EVERY
@settings(max_examples=25)
@given(cases=st.lists(draw_cases(), min_size=1, max_size=4, unique_by=lambda case: case.key))
def test_any_cases_come_back_equal(to, cases, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    dataset_format, writer_class = FORMATS[to]
    made: CaseWriter = writer_class(out, "val", "these", len(cases))
    assert made.resume() == 0
    for case in cases:
        made.write(case)
    made.finish()
    source = FileCaseSource(index_dataset(dataset_format, str(out)), "val")
    for read, case in zip(source, cases, strict=True):
        assert_equal(read, case)


@QUICK
@pytest.mark.parametrize("stop", [1, 7, 23, 24])
def test_a_conversion_goes_on_where_it_stopped(tmp_path, to, stop, monkeypatch):
    monkeypatch.setattr(parquet, "ROWS", 5)
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    convert_cases("phantoms:fundus", to, straight, 24)
    seen = 0

    def interrupt(split: str, done: int, total: int) -> None:
        nonlocal seen
        seen += done > 0
        if seen == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_cases("phantoms:fundus", to, broken, 24, interrupt)
    begun = []
    convert_cases("phantoms:fundus", to, broken, 24, lambda *counts: begun.append(counts))
    assert begun[0][1] >= stop - 5, "what was written is not written again"
    assert contents(broken) == contents(straight)


def count_files(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("*"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.mark.slow
@EVERY
def test_a_killed_conversion_goes_on_to_equal_files(tmp_path, to, monkeypatch):
    out, straight = tmp_path / "out", tmp_path / "straight"
    monkeypatch.setattr(parquet, "ROWS", 16)
    program = (
        "from medseg_gym.cases.writers import parquet; parquet.ROWS = 16\n"
        "from medseg_gym.cli.main import main; main()"
    )
    arguments = ["cases", "convert", "phantoms:chest", str(out), "--to", to, "--limit", "60"]
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments], stderr=subprocess.DEVNULL
        )
        before, deadline = count_files(out), time.monotonic() + 60
        while count_files(out) <= before + (to == "biomedparse") * 40:
            if process.poll() is not None or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        process.kill()
        process.wait()
    convert_cases("phantoms:chest", to, out, 60)
    convert_cases("phantoms:chest", to, straight, 60)
    assert contents(out) == contents(straight)
    assert len(load_cases(f"{to}:{out}", "test")) == 60


@EVERY
def test_a_folder_of_something_else_is_left_alone(tmp_path, to):
    convert_cases("phantoms:fundus", to, tmp_path / "out", 3)
    before = contents(tmp_path / "out")
    with pytest.raises(CaseError, match="not an unfinished conversion of the same cases"):
        convert_cases("phantoms:brain", to, tmp_path / "out", 3)
    with pytest.raises(CaseError, match="not an unfinished conversion of the same cases"):
        convert_cases("phantoms:fundus", to, tmp_path / "out", 4)
    assert contents(tmp_path / "out") == before
    (tmp_path / "file").write_text("x")
    with pytest.raises(CaseError, match="is a file; give a folder"):
        convert_cases("phantoms:fundus", to, tmp_path / "file", 3)


def test_a_journal_cut_short_by_a_kill_is_repaired(tmp_path):
    cases = [load_cases("phantoms:fundus", "val")[index] for index in range(3)]
    first = BiomedParseWriter(tmp_path, "val", "these", 3)
    first.resume()
    first.write(cases[0])
    first.write(cases[1])
    journal = tmp_path / ".val.unfinished"
    journal.write_bytes(journal.read_bytes()[:-30])
    second = BiomedParseWriter(tmp_path, "val", "these", 3)
    assert second.resume() == 1
    for case in cases[1:]:
        second.write(case)
    second.finish()
    assert not journal.exists()
    source = FileCaseSource(index_dataset(BiomedParseFormat, str(tmp_path)), "val")
    for read, case in zip(source, cases, strict=True):
        assert_equal(read, case)


@EVERY
def test_a_case_without_words_is_refused(tmp_path, to):
    case = Case("k", np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), bool), "")
    made = FORMATS[to][1](tmp_path, "val", "these", 1)
    made.resume()
    with pytest.raises(CaseError, match="'k' has no target text"):
        made.write(case)


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(CaseError, match="cannot write 'nifti'; use one of biomedparse, parquet"):
        convert_cases("samples", "nifti", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_written_annotations_have_what_biomedparses_own_loader_reads(tmp_path):
    convert_cases("samples", "biomedparse", tmp_path)
    for split in SPLITS:
        document = json.loads((tmp_path / f"{split}.json").read_text())
        by_id = {image["id"]: image["file_name"] for image in document["images"]}
        for annotation in document["annotations"]:
            assert by_id[annotation["image_id"]] == annotation["file_name"]
            assert (tmp_path / split / annotation["file_name"]).is_file()
            assert (tmp_path / f"{split}_mask" / annotation["mask_file"]).is_file()
            assert annotation["split"] == split and annotation["sentences"][0]["sent"]


def test_written_parquet_has_the_columns_of_the_reinforcement_learning(tmp_path):
    convert_cases("samples", "parquet", tmp_path)
    (file,) = tmp_path.glob("test-*.parquet")
    row = pq.read_table(file).to_pylist()[0]
    assert row["images"][0]["bytes"].startswith(b"\x89PNG")
    assert row["reward_model"]["ground_truth"]["bytes"].startswith(b"\x89PNG")
    assert row["extra_info"]["target_description"] in row["prompt"][0]["content"]
