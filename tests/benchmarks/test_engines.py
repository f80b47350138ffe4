"""The benchmark of generation engines, small."""

import json

import pytest

pytest.importorskip("trl")
pytest.importorskip("psutil")

from benchmarks.learning.engines import measure


def test_engines_are_timed_and_written_down(tmp_path, capsys):
    measure(
        engines="transformers,transformers-whole",
        conversations=2,
        turns=2,
        new_tokens=3,
        image_size=32,
        repetitions=1,
        threads=1,
        out=tmp_path,
    )
    results = json.loads((tmp_path / "results.json").read_text())
    assert [row["engine"] for row in results["rows"]] == ["transformers", "transformers-whole"]
    for row in results["rows"]:
        assert row["tokens_per_second"] > 0 and row["tokens_per_cpu_second"] > 0
        assert len(row["seconds_by_turn"]) == 2
    assert "tokens/s" in capsys.readouterr().out
