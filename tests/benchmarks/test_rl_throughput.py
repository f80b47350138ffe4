import json

import pytest
from typer.testing import CliRunner

pytest.importorskip("trl")
pytest.importorskip("ray")

import typer

from benchmarks.learning.rl_parties import PARTS
from benchmarks.learning.rl_throughput import measure


@pytest.fixture
def program():
    app = typer.Typer()
    app.command()(measure)
    return app


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.filterwarnings("default")  # Ray's and transformers' own
def test_both_really_train_and_all_time_is_accounted_for(program, tmp_path):
    import ray
    from medseg_agents.llm.checkpoint import save_view
    from medseg_agents.llm.tiny_model import TinyConfig, build_tiny

    size = TinyConfig(image_size=64, hidden=64, layers=1, vision_layers=2)
    model = build_tiny(tmp_path / "model", ["liver in abdomen CT, 2 calls."], size)
    save_view(model, {"image_size": 64, "texts": "terse"}, {})
    arguments = ["--model", str(model), "--backbone", "ellipse", "--out", str(tmp_path)]
    small = "--groups 2 --num-generations 2 --micro-batch 2 --max-steps 2 --iterations 2"
    result = CliRunner().invoke(program, arguments + small.split())
    ray.shutdown()
    assert result.exit_code == 0, result.output
    assert "times as many episodes a second" in result.output
    actual = json.loads((tmp_path / "results.json").read_text())
    assert [row["library"] for row in actual["rows"]] == ["RLlib", "TRL environment_factory"]
    for row in actual["rows"]:
        parts = [row[f"{part}_seconds"] for part in PARTS]
        assert min(parts) > 0
        assert sum(parts) == pytest.approx(row["seconds_per_iteration"], rel=0.05)
        parts = [row[f"{part}_cpu_seconds"] for part in PARTS]
        assert sum(parts) == pytest.approx(row["cpu_seconds_per_iteration"], rel=0.05)
        assert row["episodes_per_second"] == pytest.approx(4 / row["seconds_per_iteration"])
        assert 1 <= row["turns"] <= 2 and row["tokens"] > 0
    assert 0 <= actual["rows"][0]["padding"] <= 0.5 and actual["rows"][1]["padding"] is None
    seconds = [sum(values) for values in actual["seconds"].values()]
    assert actual["ratio"] == pytest.approx(seconds[1] / seconds[0]) and len(actual["ratios"]) == 2


def test_numbers_that_do_not_fit_are_refused(program, tmp_path):
    result = CliRunner().invoke(program, ["--model", "nowhere", "--out", str(tmp_path)])
    assert "make sft-tiny" in str(result.exception)
    result = CliRunner().invoke(program, ["--micro-batch", "7", "--out", str(tmp_path)])
    assert "multiple of micro_batch" in str(result.exception)
