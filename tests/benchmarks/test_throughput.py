"""The throughput benchmark counts what really happens, on tiny random SAMs."""

from __future__ import annotations

import csv
import json
from collections import Counter
from unittest.mock import patch

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from benchmarks.shared.meters import PARTS, MeteredBackbone
from benchmarks.throughput import workloads
from benchmarks.throughput.decoding import run_decoding
from benchmarks.throughput.measurements import run_batch_calls, run_encoding_every_click, run_envs
from benchmarks.throughput.reference_predictors import reference_for
from benchmarks.throughput.report import FLOORS, check_floors
from benchmarks.throughput.throughput import throughput
from benchmarks.throughput.workloads import STEPS, WORKLOADS, draw_cases, is_decode, make_plan
from medseg_gym.backbones import BackboneSpec, SamBackbone, register, registry
from medseg_gym.backbones.families.ellipse import EllipseBackbone
from medseg_gym.episodes import Episode
from medseg_gym.errors import MedSegError

KINDS = frozenset({"box", "point"})


@pytest.fixture(autouse=True)
def small_images(monkeypatch):
    monkeypatch.setattr(workloads, "_SIDE", 64)


@pytest.fixture
def tiny_name(tiny_sam):
    def build(checkpoint, device, decode_batch=64):
        return SamBackbone(tiny_sam, name="tiny", device=device, decode_batch=decode_batch)

    with registry.BACKBONES.temporarily(), patch.dict(registry._LOADED):
        register("tiny", BackboneSpec(build, "for tests"))
        yield "tiny"


# plans ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("num_envs", [1, 3, 16])
def test_every_slot_acts_in_every_step_and_every_action_is_valid(workload, num_envs):
    plan = make_plan(workload, num_envs, 16, KINDS)
    decodes = 0
    for slot in range(num_envs):
        episode, actions = None, 0
        for _, begins, prompt in plan.turns(slot):
            if begins:
                blank = draw_cases("noise", "train", 1, 0)[0]
                episode = Episode(blank, torch.from_numpy(blank.mask.copy()), STEPS)
            effect, error = episode.judge(prompt)
            assert not error
            assert (effect == "decode") == is_decode(prompt)
            episode.record(prompt, effect, state=episode.start if effect == "decode" else None)
            decodes += effect == "decode"
            actions += 1
        assert actions == plan.steps
    assert decodes == plan.decodes
    if workload != "mixed":
        assert decodes == plan.steps * num_envs == plan.episodes * STEPS


@pytest.mark.parametrize("num_envs", [1, 3, 16])
def test_workloads_share_images_as_they_say(num_envs):
    def images(workload):
        plan = make_plan(workload, num_envs, 16, KINDS)
        assert plan.images_used <= plan.images
        return Counter(episode.image for slot in plan.slots for episode in slot)

    assert set(images("fresh").values()) == {1}
    assert set(images("group").values()) == {8}
    assert len(images("cached")) == num_envs


def test_mixed_slots_fall_out_of_step():
    plan = make_plan("mixed", 8, 16, KINDS)
    begins = np.array([[begun for _, begun, _ in plan.turns(slot)] for slot in range(8)])
    assert begins[:, 0].all() and 0 < begins[:, 1:].any(axis=0).mean()
    assert not any(column.all() for column in begins[:, 1:].T)
    tools = {prompt.tool for slot in range(8) for _, _, prompt in plan.turns(slot)}
    assert tools == {"box", "positive_point", "negative_point", "undo", "stop"}


def test_only_boxes_where_clicks_are_of_no_use():
    for workload in WORKLOADS:
        plan = make_plan(workload, 2, 4, {"box"})
        tools = {prompt.tool for slot in range(2) for _, _, prompt in plan.turns(slot)}
        assert tools <= {"box", "undo", "stop"}


def test_refuses_what_cannot_be_planned():
    with pytest.raises(MedSegError, match="unknown workload 'warm'"):
        make_plan("warm", 1, 1, KINDS)
    with pytest.raises(MedSegError, match="num_envs"):
        make_plan("fresh", 0, 1, KINDS)
    with pytest.raises(MedSegError, match="distinct images"):
        draw_cases("samples", "test", 10_000, 0)


# runs -----------------------------------------------------------------------------------------
def play(backbone, workload, num_envs=8, episodes=8, timed=True):
    plan = make_plan(workload, num_envs, episodes, KINDS)
    cases = draw_cases("noise", "train", plan.images, 3)
    with MeteredBackbone(backbone) as metered:
        return plan, cases, run_envs(metered, plan, cases, timed, image_size=32)


@pytest.mark.parametrize(("workload", "encodes"), [("fresh", 8), ("group", 1), ("cached", 0)])
def test_counts_are_what_the_workload_implies(tiny_backbone, workload, encodes):
    plan, _, run = play(tiny_backbone, workload)
    assert run.counts.get("encodes", 0) == encodes
    assert run.counts["rows"] == plan.episodes * STEPS == 40
    assert run.counts["decode calls"] == run.counts["decoder passes"] == plan.steps == 5
    assert set(run.parts) == set(PARTS)
    assert 0 < run.parts["decode"] < sum(run.parts.values()) < run.seconds


def test_mixed_costs_one_decoder_call_per_step_at_most(tiny_backbone):
    plan, _, run = play(tiny_backbone, "mixed")
    assert run.counts["rows"] == plan.decodes < plan.steps * 8
    assert 0.8 * plan.steps < run.counts["decoder passes"] <= plan.steps
    assert run.counts["encodes"] == plan.images_used


def test_a_decoder_that_is_run_in_parts_is_counted_in_parts(tiny_sam):
    _, _, run = play(SamBackbone(tiny_sam, decode_batch=3), "fresh", timed=False)
    assert run.counts["decode calls"] == 5 and run.counts["decoder passes"] == 15
    assert run.parts is None


def test_a_backbone_without_a_decoder_counts_its_calls():
    backbone = EllipseBackbone()
    _, _, run = play(backbone, "fresh")
    assert run.counts["decoder passes"] == 5
    assert reference_for(backbone) is None


@pytest.mark.parametrize("workload", WORKLOADS)
def test_baselines_do_the_same_work(tiny_backbone, workload):
    plan, cases, run = play(tiny_backbone, workload, num_envs=4)
    predictor = reference_for(tiny_backbone)
    slow = run_encoding_every_click(predictor, plan, cases, 60, True)
    batched = run_batch_calls(predictor, plan, cases, 60, True)
    assert slow.clicks == batched.clicks == plan.decodes == run.counts["rows"]
    assert slow.encoded == 0 and batched.encoded == plan.images_used
    for baseline in (slow, batched):
        assert baseline.dice.keys() == run.dice.keys()
        assert max(abs(baseline.dice[key] - run.dice[key]) for key in run.dice) < 1e-3
    assert len({round(dice, 6) for dice in run.dice.values()}) > plan.decodes // 3
    assert slow.seconds_for(plan) == pytest.approx(slow.click_seconds)
    encoding = 0 if workload == "cached" else batched.encode_seconds
    assert batched.seconds_for(plan) == pytest.approx(batched.click_seconds + encoding)


def test_a_baseline_short_of_time_is_scaled_by_its_clicks(tiny_backbone):
    plan, cases, _ = play(tiny_backbone, "fresh")
    predictor = reference_for(tiny_backbone)
    slow = run_encoding_every_click(predictor, plan, cases, 0, True)
    assert slow.clicks == 1
    assert slow.seconds_for(plan) == pytest.approx(40 * slow.click_seconds)
    batched = run_batch_calls(predictor, plan, cases, 0, True)
    assert (batched.encoded, batched.clicks) == (4, 20)
    assert batched.seconds_for(plan) == pytest.approx(
        2 * (batched.encode_seconds + batched.click_seconds)
    )


def test_decoding_alone_compares_equal_results(tiny_backbone):
    cases = draw_cases("noise", "train", 2, 0)
    run = run_decoding(tiny_backbone, reference_for(tiny_backbone), cases, 5, 2)
    assert len(run.ours) == len(run.theirs) == 2 and min(*run.ours, *run.theirs) > 0
    assert run.gap < 1e-4


def test_sam2_predictor_does_the_same_work():
    pytest.importorskip("sam2")
    from medseg_gym.backbones.families.sam2.backbone import Sam2Backbone, build_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = build_model("sam2.1_hiera_t", 64)
    with torch.no_grad():
        for mlp in model.sam_mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight.mul_(60)
    backbone = Sam2Backbone(model)
    predictor = reference_for(backbone)
    plan, cases, run = play(backbone, "group", num_envs=2)
    slow = run_encoding_every_click(predictor, plan, cases, 0.1, True)
    batched = run_batch_calls(predictor, plan, cases, 60, True)
    assert batched.encoded == 1 and batched.clicks == 40
    for baseline in (slow, batched):
        assert all(abs(run.dice[key] - dice) < 5e-3 for key, dice in baseline.dice.items())
    assert run_decoding(backbone, predictor, cases, 3, 1).gap < 1e-3


# the program ----------------------------------------------------------------------------------
def run_program(*arguments):
    app = typer.Typer()
    app.command()(throughput)
    common = ["--device", "cpu", "--episodes", "8", "--baseline-seconds", "0.05"]
    return CliRunner().invoke(app, [*arguments, *common], catch_exceptions=False)


@pytest.mark.slow
def test_program_runs_end_to_end(tiny_name, tmp_path):
    result = run_program(
        "--backbones", "tiny,ellipse", "--num-envs", "2,8", "--repetitions", "2",
        "--decode-rows", "4", "--observed-size", "32", "--out", str(tmp_path), "--check-floors",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    actual = json.loads((tmp_path / "throughput.json").read_text())
    assert len(actual["rows"]) == 16 and len(actual["decoding"]) == 1
    for row in actual["rows"]:
        assert not row["note"] and row["steps_per_s"] > 0
        shares = [row[f"share_{part}"] for part in (*PARTS, "other")]
        assert sum(shares) == pytest.approx(1) and min(shares) >= 0
        assert row["encodes_per_episode"] == pytest.approx(
            {"fresh": 1, "group": 1 / 8, "cached": 0}.get(
                row["workload"], row["encodes_per_episode"]
            )
        )
        assert row["decoder_calls_per_step"] <= 1
        assert row["rows_per_step"] <= row["num_envs"]
        assert (row["ratio_a"] is None) == (row["backbone"] == "ellipse")
        assert row["dice_gap_a"] is None or max(row["dice_gap_a"], row["dice_gap_b"]) < 1e-3
    with (tmp_path / "throughput.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 16
    assert (tmp_path / "throughput.png").stat().st_size > 1000
    assert "Measured on" in result.output and "load average" in result.output
    assert "passed: every backbone, mixed: decoder_calls_per_step <= 1.5" in result.output
    assert "not measured: sam2.1_t" in result.output


def test_a_column_that_does_not_fit_is_left_and_said(tiny_name, tmp_path):
    true_encode = SamBackbone.encode

    def encode(self, images):
        if len(images) > 2:
            raise MemoryError
        return true_encode(self, images)

    with patch.object(SamBackbone, "encode", encode):
        result = run_program(
            "--backbones", "tiny", "--num-envs", "1,4,8", "--workloads", "fresh",
            "--repetitions", "1", "--decode-rows", "2", "--out", str(tmp_path),
        )  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "throughput.json").read_text())["rows"]
    assert [row["note"] for row in rows] == ["", "out of memory", "not tried: fewer did not fit"]


def test_floors_are_compared_with_the_rows_they_are_about():
    def row(**values):
        base = {"backbone": "sam2.1_t", "image_side": 1024, "num_envs": 16, "note": ""}
        return {**base, "ratio_a": None, "decoder_calls_per_step": 1.0, **values}

    steps = [
        row(workload="fresh", ratio_a=4.5),
        row(workload="fresh", ratio_a=1.0, num_envs=1),
        row(workload="group", ratio_a=17.0),
        row(workload="cached", ratio_a=99.0, backbone="medsam2"),
        row(workload="mixed", decoder_calls_per_step=1.6),
    ]
    decodes = [{"backbone": "medsam2", "image_side": 512, "ratio_b": 1.9}]
    actual = [(verdict, value) for _, verdict, value in check_floors(steps, decodes, "cpu")]
    assert actual == [
        ("passed", 4.5),
        ("missed", 17.0),
        ("not measured", None),
        ("not measured", None),
        ("passed", 1.9),
        ("missed", 1.6),
    ]
    assert len({floor.text for floor in FLOORS if floor.device == "cuda"}) == 16
