"""The benchmark of interactive quality: its controls control, its table tells what was played."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks.policies.controls import OtherImage, SamePrompts
from benchmarks.policies.interactive_quality import choose_cases, measure
from medseg_gym import annotators
from medseg_gym.backbones import load
from medseg_gym.cases import CaseList, load_cases
from medseg_gym.errors import MedSegError
from medseg_gym.policy import make_envs, play_cases


@pytest.fixture(scope="module")
def cases():
    """Two targets in each of three synthetic images, one real case."""
    source = load_cases("phantoms", "test")
    return [
        *(source[4 * page + k] for page in range(3) for k in range(2)),
        load_cases("samples")[0],
    ]


def play(backbone, cases, policy):
    envs = make_envs(4, cases=CaseList(cases), backbone=backbone, max_steps=3)
    made = policy(envs.codec)
    return [p for batch in play_cases(envs, made, [c.key for c in cases]) for p in batch]


def test_the_control_gets_the_same_prompts_on_another_image(cases):
    pocket = load("pocket", device="cpu")
    own = play(pocket, cases, lambda codec: annotators.make("oracle-box-click", codec))
    other = play(OtherImage(pocket, cases), cases, lambda codec: SamePrompts(codec, own))
    for mine, theirs in zip(own, other, strict=True):
        assert mine.key == theirs.key
        prompts = [step.prompt for step in theirs.episode.steps]
        assert prompts[: len(mine.episode.steps)] == [step.prompt for step in mine.episode.steps]
        assert theirs.episode.state.mask.shape == mine.episode.case.mask.shape
    assert any(
        not np.array_equal(a.episode.state.mask, b.episode.state.mask)
        for a, b in zip(own, other, strict=True)
    )


def test_no_case_stands_in_for_another_of_its_group(cases):
    ellipse = load("ellipse", device="cpu")
    shown = OtherImage(ellipse, cases)
    for case in cases:
        other = shown._others[case.image.tobytes()]
        same = [c for c in cases if c.group == case.group]
        assert not any(np.array_equal(other, c.image) for c in same)
    with pytest.raises(MedSegError, match="no other image"):
        OtherImage(ellipse, cases[:2])


def test_an_image_blind_segmenter_is_no_better_on_its_own_image(cases):
    ellipse = load("ellipse", device="cpu")
    own = play(ellipse, cases, lambda codec: annotators.make("oracle-box-click", codec))
    other = play(OtherImage(ellipse, cases), cases, lambda codec: SamePrompts(codec, own))
    assert [p.episode.dice for p in own] == [p.episode.dice for p in other]


@pytest.mark.slow
def test_it_prints_and_writes_what_it_promises(tmp_path):
    app = Typer()
    app.command()(measure)
    arguments = "--cases phantoms --cases samples --limit 14 --beside= --backbone pocket"
    result = CliRunner().invoke(app, [*arguments.split(), "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "(synthetic)" in result.output and "pocket, other image" in result.output
    results = json.loads((tmp_path / "results.json").read_text())
    phantoms = [r for r in results["rows"] if r["cases"] == "phantoms" and r["subset"] == "all"]
    assert {(r["way"], r["backbone"]) for r in phantoms} == {
        (way, name)
        for way in ("clicks", "box", "loose box")
        for name in ("pocket", "pocket, other image", "ellipse")
    }
    for row in phantoms:
        assert len(row["dice_after"]) == 6 and row["dice_after"][0] == 0 and row["groups"] == 4
        assert row["dice_interval"] is None  # four images are too few
    gaps = {
        row["difference"]: row["mean"]
        for row in results["differences"]
        if row["cases"] == "phantoms" and row["subset"] == "all"
    }
    own, other = phantoms[3], phantoms[4]
    assert (own["way"], own["backbone"]) == ("box", "pocket")
    assert gaps["box: pocket - pocket, other image"] == pytest.approx(
        own["dice_after"][1] - other["dice_after"][1]
    )
    assert gaps["click 5 - click 1: pocket"] == pytest.approx(
        phantoms[0]["dice_after"][5] - phantoms[0]["dice_after"][1]
    )
    with (tmp_path / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(results["rows"])
    for name in ("curves-phantoms", "sheet-phantoms", "curves-samples", "sheet-samples"):
        assert (tmp_path / f"{name}.png").stat().st_size > 1000


def test_real_targets_below_the_least_area_are_left_out():
    assert all(c.area_fraction >= 0.01 for c in choose_cases("samples", "test", 99, 0.01))
    with pytest.raises(MedSegError, match="no case"):
        choose_cases("samples", "test", 99, 0.9)
