"""The benchmark's made-up data sets are sound, and its decoders read what the sources read."""

from __future__ import annotations

import time

import pytest

from benchmarks.data.case_files import DECODERS, SPECS, WRITERS
from benchmarks.data.case_indexing import time_index, time_indexing
from medseg_gym.cases.check import check_cases


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
