import json

import pytest
from typer.testing import CliRunner

pytest.importorskip("trl")
pytest.importorskip("ray")

import typer

from benchmarks.learning.memory import measure


@pytest.mark.slow
def test_each_row_is_measured_in_a_process_of_its_own(tmp_path):
    app = typer.Typer()
    app.command()(measure)
    result = CliRunner().invoke(app, ["--small", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "Measured on" in result.output
    whole, bounded = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert whole["tokens"] == bounded["tokens"] > 1000
    kept, few = (row["peak"] - row["held"] for row in (whole, bounded))
    assert 0 < few < 0.7 * kept
