"""The five workloads of docs/results/throughput.md, 64 and 256 environments, and their floors.

Fresh, shared, cached and mixed images and decoding alone, each beside the family's own predictor;
and a vector step beside one bare call of the decoder with the same rows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import gymnasium as gym
import numpy as np
import torch

import medseg_gym  # noqa: F401  (registers the id)
from benchmarks.gpu.rows import LATE, MEASURED, MISSED, PASSED, SKIPPED, Job
from benchmarks.shared.meters import MeteredBackbone, synchronise
from benchmarks.throughput.reference_predictors import reference_for
from benchmarks.throughput.report import check_floors
from benchmarks.throughput.rows import Settings, labels, measure_decoding, measure_or_note
from medseg_gym import backbones
from medseg_gym.backbones import Backbone, PromptRow
from medseg_gym.cases import CaseList, load_cases
from medseg_gym.envs.medseg_vector import MedSegVectorEnv
from medseg_gym.errors import BackboneError

STEP_LIMIT = 1.3
"""A vector step, in times of one bare call of the decoder with the same rows."""

WORKLOADS = ("cached", "group", "fresh", "mixed")
"""The most telling first."""


def run(job: Job) -> None:
    """Measure, the most telling first."""
    names: tuple[str, ...] = ("sam2.1_b+", "sam2.1_t")
    counts: tuple[int, ...] = (64, 256)
    settings = Settings(64, 1, 4.0, "noise", "train", 128)
    if job.small:
        names, counts = ("sam2.1_t?image_size=64",), (2, 4)
        settings = Settings(2, 1, 0.05, "noise", "train", 32)
    loaded: dict[str, Backbone] = {}
    for name in names:
        try:
            loaded[name] = backbones.load(name, device=job.device, random_weights=True)
        except BackboneError as error:
            job.add(name, SKIPPED, str(error))
    steps: list[dict[str, Any]] = []
    decodes: list[dict[str, Any]] = []
    warm = {name: MeteredBackbone(backbone) for name, backbone in loaded.items()}
    for name, backbone in loaded.items():
        predictor = reference_for(backbone)
        assert predictor is not None
        what = f"{name}, decoding alone, {counts[0]} rows"
        if not job.late(what):
            decodes.append(measure_decoding(name, backbone, predictor, counts[0], settings))
            row = decodes[-1]
            job.add(what, MEASURED, f"{row['rows_per_s']:.3g} rows/s, {row['ratio_b']:.2f} x (b)",
                    numbers=row)  # fmt: skip
        for count in counts:
            compare_step(job, name, backbone, count)
    for count in counts:
        for workload in WORKLOADS:
            for name, backbone in loaded.items():
                what = f"{name}, {workload}, {count} envs"
                if job.late(what):
                    continue
                row = labels(name, backbone, workload, count)
                predictor = reference_for(backbone)
                row = measure_or_note(row, backbone, warm[name], predictor, settings)
                steps.append(row)
                if row["note"]:
                    job.add(what, MEASURED, row["note"], numbers=row)
                    continue
                memory = row["peak_memory_mib"]
                shown = f"{row['steps_per_s']:.3g} steps/s, {row['ratio_a']:.3g} x (a)"
                shown += f", {row['ratio_b']:.2f} x (b)"
                shown += "" if memory is None else f", {memory:.0f} MiB"
                job.add(what, MEASURED, shown, numbers=row)
    if job.cuda and not job.small:
        judge(job, steps, decodes)


def judge(job: Job, steps: Sequence[dict[str, Any]], decodes: Sequence[dict[str, Any]]) -> None:
    """Keep a row for every floor of a GPU."""
    verdicts = {"passed": PASSED, "missed": MISSED, "not measured": LATE}
    for text, verdict, value in check_floors(steps, decodes, "cuda"):
        job.add(f"floor: {text}", verdicts[verdict], "" if value is None else f"{value:.3g}")


def compare_step(job: Job, name: str, backbone: Backbone, count: int) -> None:
    """Time vector steps, each beside one bare decode of the rows that it decoded."""
    what = f"{name}, a step in decoder calls, {count} envs"
    if job.late(what):
        return
    ratio, step, bare = step_and_decode(backbone, count, 1 if job.small else 4)
    job.compare(
        what, ratio, STEP_LIMIT, at_most=True,
        shown=f"{ratio:.2f} ({1e3 * step:.3g} ms, the call alone {1e3 * bare:.3g} ms)",
        step_seconds=step, decode_seconds=bare,
    )  # fmt: skip


class _Rows:
    """A backbone that remembers what it decoded last."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.last: Sequence[PromptRow] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def __deepcopy__(self, memory: dict) -> _Rows:
        return self

    def decode(self, rows: Sequence[PromptRow]) -> Any:
        """See `Backbone.decode`."""
        self.last = rows
        return self._backbone.decode(rows)


def step_and_decode(backbone: Backbone, count: int, episodes: int) -> tuple[float, float, float]:
    """Play episodes on images encoded before, step and decoder call taking turns.

    Args:
        backbone: The segmenter.
        count: Slots.
        episodes: Played one after the other, after one that is not timed.

    Returns:
        Median of their ratios, and median seconds of both.
    """
    source = load_cases("samples", "test")
    cases = CaseList([source[i] for i in range(min(8, len(source)))])
    watched = _Rows(backbone)
    envs = gym.make_vec(
        "MedSeg-v0",
        num_envs=count,
        backbone=watched,
        cases=cases,
        max_steps=5,
        autoreset_mode="disabled",
    ).unwrapped
    assert isinstance(envs, MedSegVectorEnv)
    rng = np.random.default_rng(0)
    times: list[tuple[float, float]] = []
    for episode in range(episodes + 1):
        keys = [cases.keys[slot % len(cases)] for slot in range(count)]
        envs.reset(seed=episode, options={"case": keys})
        for turn in range(5):
            actions = np.zeros((count, 5), np.int64)
            actions[:, 0] = 1 if turn else 0
            actions[:, 1:3], actions[:, 3:] = rng.integers(100, 450, (count, 2)), 800
            synchronise(backbone.device)
            began = time.perf_counter()
            envs.step(actions)
            between = time.perf_counter()
            with torch.inference_mode():
                backbone.decode(watched.last)
            synchronise(backbone.device)
            ended = time.perf_counter()
            if episode:
                times.append((between - began, ended - between))
    envs.close()
    ratio = median(step / bare for step, bare in times)
    return ratio, median(step for step, _ in times), median(bare for _, bare in times)
