"""The benchmark of steps counts real ones."""

from __future__ import annotations

import json

import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks.throughput.step_speed import measure


@pytest.mark.slow
def test_it_times_steps_that_make_masks(tmp_path):
    app = Typer()
    app.command()(measure)
    arguments = "--backbones pocket,ellipse --num-envs 1,3 --repeats 1 --seconds 0.2"
    result = CliRunner().invoke(app, [*arguments.split(), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "results.json").read_text())
    assert [(r["backbone"], r["envs"], r["images"]) for r in results["rows"]] == [
        (name, envs, images)
        for envs in (1, 3)
        for images in ("cached", "fresh")
        for name in ("pocket", "ellipse")
    ]
    for row in results["rows"]:
        assert row["low"] <= row["rate"] <= row["high"]
    assert results["rows"][1]["ratio"] == pytest.approx(1)
    assert results["encode_ms"]["pocket"] > results["encode_ms"]["ellipse"] >= 0
