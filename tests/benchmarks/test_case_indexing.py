"""The benchmark's made-up data sets are sound, and its decoders read what the sources read."""

from __future__ import annotations

import time

import numpy as np
import pytest

from benchmarks.data import volume_indexing
from benchmarks.data.case_files import DECODERS, SPECS, WRITERS
from benchmarks.data.case_indexing import time_index, time_indexing
from medseg_gym.cases.check import check_cases
from medseg_gym.cases.nifti.areas import label_areas
from medseg_gym.cases.volumes import Volume


@pytest.mark.parametrize("name", SPECS)
def test_synthetic_files_have_no_defects_and_every_case_is_decoded(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    count = 100 if name == "dicom" else 20
    assert WRITERS[name](tmp_path / "data", count, 64) == count
    report = check_cases(SPECS[name].format(root=tmp_path / "data"))
    assert not report.bad and report.seen
    assert DECODERS[name](tmp_path / "data") >= 0.5 * len(report.seen)


def test_indexing_is_timed_cold_and_warm(tmp_path):
    row = time_indexing(tmp_path, "biomedparse", 20, 32)
    assert row["cases"] == 10 and row["files"] == 20 and not row["defects"]
    assert all(row[f"{a}_{b}"] > 0 for a in ("open", "check") for b in ("cold", "warm"))
    begin = time.perf_counter()
    result = time_index(f"biomedparse:{tmp_path / 'biomedparse-many'}", "check", tmp_path / "new")
    assert 0 < result["seconds"] < time.perf_counter() - begin


@pytest.mark.parametrize("name", ["nifti", "dicom"])
def test_volumes_are_indexed_opened_and_read_within_the_bytes_allowed(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = volume_indexing.cache_of(name).limit
    row = volume_indexing.time_volumes(tmp_path, name, 4, 64, 6)
    assert row["volumes"] == 4 and row["cases"] >= 4 and not row["defects"]
    assert row["read_megabytes"] > 0.01 and row["megabytes_per_second"] > 0
    assert row["opened_seconds"] > 0 and row["roomy_ms"] > 0
    assert 0 <= row["tight_held_mb"] <= row["tight_limit_mb"] < row["roomy_limit_mb"]
    cache = volume_indexing.cache_of(name)
    assert cache.limit == before and cache.nbytes == 0
    assert volume_indexing.as_table([row]).row_count == 1


def test_only_slices_with_labels_are_counted_pixel_by_pixel(tmp_path):
    (_, label), *_ = volume_indexing.islands(1, (32, 24, 9))
    path = tmp_path / "labels.nii.gz"
    nibabel = pytest.importorskip("nibabel")
    nibabel.save(nibabel.Nifti1Image(label, np.diag([-1.0, -1.0, 3.0, 1.0])), path)
    areas = label_areas(Volume(path)).areas
    counted = {value: sum(by_slice.values()) for (_, value), by_slice in areas.items()}
    assert counted == {v: int((label == v).sum()) for v in (1, 2, 3) if (label == v).any()}
