"""One row of the throughput benchmark: environments and baselines, taking turns."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from benchmarks.shared.meters import PARTS, MeteredBackbone
from benchmarks.throughput.decoding import run_decoding
from benchmarks.throughput.measurements import (
    BaselineRun,
    EnvRun,
    run_batch_calls,
    run_encoding_every_click,
    run_envs,
)
from benchmarks.throughput.reference_predictors import ReferencePredictor
from benchmarks.throughput.workloads import Plan, draw_cases, make_plan
from medseg_gym.backbones import Backbone
from medseg_gym.cases import Case

_DECODE_REPETITIONS = 5
_DECODE_IMAGES = 2


@dataclass(frozen=True)
class Settings:
    """Settings of every measurement; see the options of `throughput.throughput`."""

    episodes: int
    repetitions: int
    baseline_seconds: float
    cases: str
    split: str
    observed_size: int


def labels(name: str, backbone: Backbone, workload: str, num_envs: int) -> dict[str, Any]:
    """Return the fields of a row that are known before anything is measured."""
    return {
        "backbone": name,
        "image_side": getattr(backbone, "image_side", None),
        "workload": workload,
        "num_envs": num_envs,
        "note": "",
    }


def measure_or_note(
    row: dict[str, Any],
    backbone: Backbone,
    warm: MeteredBackbone,
    predictor: ReferencePredictor | None,
    settings: Settings,
) -> dict[str, Any]:
    """`measure`, or the labels with a note where memory does not suffice."""
    try:
        return measure(row, backbone, warm, predictor, settings)
    except (MemoryError, RuntimeError) as error:  # torch has a class of its own for GPUs alone
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and (
            "not enough memory" not in str(error) and "can't allocate memory" not in str(error)
        ):
            raise
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {**row, "note": "out of memory"}


def measure(
    row: dict[str, Any],
    backbone: Backbone,
    warm: MeteredBackbone,
    predictor: ReferencePredictor | None,
    settings: Settings,
) -> dict[str, Any]:
    """Measure one backbone, workload and number of environments.

    Args:
        row: Labels, put first in the result.
        backbone: Ours.
        warm: A wrapper that keeps its embeddings from one measurement to the next.
        predictor: Theirs, if there is one.
        settings: See there.
    """
    kinds = backbone.trained_kinds & {"box", "point"}
    plan = make_plan(row["workload"], row["num_envs"], settings.episodes, kinds)
    apart = backbone.device.type == "cuda"  # a stopwatch must wait for the GPU, which costs
    runs: list[EnvRun] = []
    slow: list[BaselineRun] = []
    batched: list[BaselineRun] = []
    for repetition in range(settings.repetitions):
        cases = _draw(plan, settings, repetition)
        rest = (plan, cases, settings.baseline_seconds, backbone.takes_mask_input)
        runs.append(_run_envs(backbone, warm, plan, cases, settings, timed=not apart))
        if predictor is not None:
            slow.append(run_encoding_every_click(predictor, *rest))
            batched.append(run_batch_calls(predictor, *rest))
    profiled = runs
    if apart:
        cases = _draw(plan, settings, settings.repetitions)
        profiled = [_run_envs(backbone, warm, plan, cases, settings, timed=True)]
    seconds = median(run.seconds for run in runs)
    counts, peaks = runs[0].counts, [run.peak for run in runs if run.peak is not None]
    shares = {
        stage: median((run.parts or {})[stage] / run.seconds for run in profiled) for stage in PARTS
    }
    result = {
        **row,
        "steps_per_s": plan.decodes / seconds,
        "actions_per_s": plan.steps * len(plan.slots) / seconds,
        "encodes_per_episode": counts.get("encodes", 0) / plan.episodes,
        "decoder_calls_per_step": counts["decoder passes"] / plan.steps,
        "rows_per_step": counts["rows"] / plan.steps,
        "peak_memory_mib": max(peaks, default=None),
        **{f"share_{stage}": share for stage, share in shares.items()},
        "share_other": 1 - sum(shares.values()),
        "episodes": plan.episodes,
        "vector_steps": plan.steps,
        "decodes": plan.decodes,
        "repetitions": settings.repetitions,
        "seconds": {"env": [run.seconds for run in runs]},
    }
    for letter, baseline in (("a", slow), ("b", batched)):
        times = [run.seconds_for(plan) for run in baseline]
        result[f"steps_per_s_{letter}"] = plan.decodes / median(times) if times else None
        result[f"ratio_{letter}"] = median(times) / seconds if times else None
        result[f"{letter}_images"] = sum(run.encoded for run in baseline)
        result[f"{letter}_clicks"] = sum(run.clicks for run in baseline)
        result["seconds"][letter] = times
        result[f"dice_gap_{letter}"] = max(
            (
                abs(ours.dice[key] - dice)
                for ours, theirs in zip(runs, baseline, strict=False)
                for key, dice in theirs.dice.items()
            ),
            default=None,
        )
    return result


def _draw(plan: Plan, settings: Settings, repetition: int) -> list[Case]:
    # Known images stay the same, so that they are encoded once for all measurements.
    seed = 0 if plan.warm else 1 + repetition
    return draw_cases(settings.cases, settings.split, plan.images, seed)


def _run_envs(
    backbone: Backbone,
    warm: MeteredBackbone,
    plan: Plan,
    cases: Sequence[Case],
    settings: Settings,
    timed: bool,
) -> EnvRun:
    if plan.warm:
        return run_envs(warm, plan, cases, timed, image_size=settings.observed_size)
    with MeteredBackbone(backbone) as metered:
        return run_envs(metered, plan, cases, timed, image_size=settings.observed_size)


def measure_decoding(
    name: str,
    backbone: Backbone,
    predictor: ReferencePredictor,
    rows: int,
    settings: Settings,
) -> dict[str, Any]:
    """Compare decoding alone; also the first use of the model, so that nothing later warms it."""
    images = min(_DECODE_IMAGES, rows, predictor.encode_batch * _DECODE_IMAGES)
    cases = draw_cases(settings.cases, settings.split, images, seed=0)
    run = run_decoding(backbone, predictor, cases, rows, _DECODE_REPETITIONS)
    ours, theirs = median(run.ours), median(run.theirs)
    return {
        "backbone": name,
        "image_side": getattr(backbone, "image_side", None),
        "rows": rows,
        "rows_per_s": rows / ours,
        "rows_per_s_b": rows / theirs,
        "ratio_b": theirs / ours,
        "largest_gap": run.gap,
        "batch_call": predictor.batch_call,
        "seconds": {"ours": run.ours, "b": run.theirs},
    }
