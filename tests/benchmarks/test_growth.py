"""Curves of growth: exponents are right, every curve times the work that it names."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks.shared.meters import MeteredBackbone
from benchmarks.throughput import workloads
from benchmarks.throughput.growth.__main__ import measure
from benchmarks.throughput.growth.curves import CURVES, Setting
from benchmarks.throughput.growth.exponent import fit_exponent
from benchmarks.throughput.growth.measuring import Growth, measure_curve
from medseg_gym.backbones.families.ellipse import EllipseBackbone


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_exponents_are_those_of_large_sizes(power):
    rng = np.random.default_rng(0)
    sizes = [2**i for i in range(12)]
    costs = [(0.3 + size**power) * rng.normal(1, 0.01, 9) for size in sizes]
    fit = fit_exponent(sizes, costs)
    assert fit.value == pytest.approx(power, abs=0.03) and fit.low < fit.value < fit.high
    assert fit.above_linear is (power > 1)


def test_noise_makes_the_interval_wide():
    sizes, rng = [1, 2, 4, 8], np.random.default_rng(1)
    tight, wide = (
        fit_exponent(sizes, [size * rng.lognormal(0, spread, 9) for size in sizes])
        for spread in (0.01, 0.5)
    )
    assert tight.high - tight.low < 0.05 < wide.high - wide.low
    assert tight.low < 1 < tight.high or abs(tight.value - 1) < 0.02


@pytest.fixture
def counts(monkeypatch, tmp_path):
    """Rows that a curve's work decodes and images that it encodes, for a size."""
    monkeypatch.setattr(workloads, "_SIDE", 64)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    metered: list[MeteredBackbone] = []
    true_init = MeteredBackbone.__init__

    def remember(self, backbone):
        true_init(self, EllipseBackbone())
        metered.append(self)

    monkeypatch.setattr(MeteredBackbone, "__init__", remember)

    def count(name, size):
        work = CURVES[name].prepare(Setting("ellipse", "cpu", tmp_path), size)
        act = next(work)
        if not metered:
            return act()
        for _ in range(2):  # the second time costs what the first did
            metered[-1].counts.clear()
            act()
        return metered[-1].counts["rows"], metered[-1].counts["encodes"]

    return count


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [("envs", 5, (5, 0)), ("steps", 3, (12, 0)), ("prompts", 3, (4, 0)), ("side", 32, (4, 0)),
     ("cases", 16, (16, 16)), ("files", 3, None)],
)  # fmt: skip
def test_a_curve_does_the_work_that_it_names(counts, name, size, expected):
    assert counts(name, size) == expected


def test_a_curve_is_measured_at_every_size(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    curve = measure_curve("envs", (1, 2, 3, 4), "ellipse", "cpu", 2, tmp_path)
    assert isinstance(curve, Growth) and curve.sizes == (1, 2, 3, 4)
    assert all(len(of_size) == 2 and min(of_size) > 0 for of_size in curve.seconds)
    assert list(curve.peaks) == sorted(curve.peaks) and curve.peaks[0] > 10
    assert json.dumps(curve.as_json())


def run(*arguments):
    app = Typer()
    app.command()(measure)
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.mark.slow
def test_the_command_writes_numbers_and_a_figure(tmp_path):
    arguments = ("--curves", "steps,side,files", "--backbone", "ellipse", "--turns", 2, "--small")
    result = run(*arguments, "--out", tmp_path)
    assert result.exit_code in (0, 1), result.output  # the verdict is about the machine
    curves = json.loads((tmp_path / "growth.json").read_text())["curves"]
    assert [curve["name"] for curve in curves] == ["steps", "side", "files"]
    assert curves[1]["power"] == 2 and set(curves[0]["exponent"]) == {"value", "low", "high"}
    assert (tmp_path / "growth.png").stat().st_size > 10_000
    assert "growth of cost" in result.output and "Measured on" in result.output


def test_unknown_curves_are_refused(tmp_path):
    refused = run("--curves", "envs,steepness", "--out", tmp_path)
    assert "no curve steepness; known: envs" in str(refused.exception)
    assert "at least 1" in str(run("--turns", 0, "--out", tmp_path).exception)
