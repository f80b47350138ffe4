"""The RL part of the GPU programs, on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl")
pytest.importorskip("ray")

from benchmarks.gpu.rl import CHUNKED, SMALL, Size, Variant, as_table, variants

ROOT = Path(__file__).parents[2]


def test_chunks_are_measured_where_this_version_has_them():
    plain, chunked = variants(set()), variants({CHUNKED})
    assert {v.trained for v in plain} == {"all", "adapters"}
    assert {v.shared for v in plain} == {True, False}
    assert [v.chunked for v in chunked if v.chunked is not None] == [0, 256]
    assert len({v.name for v in chunked}) == len(chunked) == len(plain) + 2


def test_the_large_model_has_a_real_vocabulary_and_300_million_parameters():
    size = Size()
    # Attention (q, o whole; k, v half) and a gated MLP of three times the width, a layer.
    layer = (3 + 9) * size.hidden**2
    assert size.layers * layer + size.vocabulary * size.hidden >= 300e6


def test_a_table_has_a_column_for_whatever_a_row_has():
    table = as_table([{"variant": "a", "seconds": 1.0}, {"variant": "b", "memory/x": 2.0}], "t")
    assert [column.header for column in table.columns] == ["variant", "seconds", "memory/x"]


@pytest.mark.slow
def test_the_script_measures_every_variant_and_prints_the_table_last(tmp_path):
    out = tmp_path / "out"
    ran = subprocess.run(
        [ROOT / "benchmarks/gpu/run.sh", "--device", "cpu", "--small", "--out", out],
        env={**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    results = json.loads((out / "rl.json").read_text())
    names = [row["variant"] for row in results["rows"]]
    from medseg_agents.grpo.settings import ChatSettings

    assert names == [v.name for v in variants(set(ChatSettings.__dataclass_fields__))]
    assert not results["left_out"] and results["size"] == vars(SMALL)
    rows = {row["variant"]: row for row in results["rows"]}
    exact = rows[Variant(trained="all", precision="float32").name]
    assert exact["sampling/max_ratio_deviation"] < 1e-3
    rounded = rows[Variant(trained="all").name]
    assert exact["sampling/max_ratio_deviation"] < rounded["sampling/max_ratio_deviation"]
    assert all(row["learned_tokens_per_second"] > 0 for row in results["rows"])
    assert "million parameters" in ran.stdout.rpartition(" s an iteration")[2]
