"""One plan, played three ways: by the environment and by the two baselines."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

import medseg_gym  # noqa: F401  (registers the id)
from benchmarks.shared.meters import (
    MeteredBackbone,
    Stopwatch,
    forget_peak,
    peak_memory,
    synchronise,
)
from benchmarks.throughput.reference_predictors import PromptsInForce, ReferencePredictor
from benchmarks.throughput.workloads import STEPS, Plan, actions_by_step, is_decode
from medseg_gym.cases import Case
from medseg_gym.cases.case_source import CaseList
from medseg_gym.envs.medseg_vector import MedSegVectorEnv
from medseg_gym.errors import MedSegError
from medseg_gym.prompts import TOOLS, AddBox, AddPoint, Prompt, Stop

Dice = dict[tuple[int, int], float]  # (slot, step) -> Dice after it
_KIND_OF = {"box": "box", "positive_point": "point", "negative_point": "point"}


# the environment ------------------------------------------------------------------------------
@dataclass(frozen=True)
class EnvRun:
    """Measurements of a run of the environment.

    Args:
        seconds: Wall time from the first reset to the last observation.
        counts: See `MeteredBackbone`.
        parts: Seconds by part; None in a run without a stopwatch.
        peak: Peak memory in MiB, see `peak_memory`.
        dice: After every step.
    """

    seconds: float
    counts: dict[str, int]
    parts: dict[str, float] | None
    peak: float | None
    dice: Dice


def run_envs(
    backbone: MeteredBackbone, plan: Plan, cases: Sequence[Case], timed: bool, **options: Any
) -> EnvRun:
    """Play a plan through `gym.make_vec("MedSeg-v0", ...)`.

    Args:
        backbone: Fresh from its wrapper, so that no image is encoded yet; for a plan of known
            images they are encoded before the clock starts, where they are not yet.
        plan: What to do.
        cases: One per image of the plan.
        timed: Measure the parts too; on a GPU this slows the run.
        **options: For `make_vec`.

    Raises:
        MedSegError: The environment did other work than planned.
    """
    count = len(plan.slots)
    envs = gym.make_vec(
        "MedSeg-v0",
        num_envs=count,
        backbone=backbone,
        cases=CaseList(cases),
        max_steps=STEPS,
        autoreset_mode="disabled",
        tools=[t for t in TOOLS if _KIND_OF.get(t, "box") in backbone.prompt_kinds],
        **options,
    ).unwrapped
    assert isinstance(envs, MedSegVectorEnv)
    actions = actions_by_step(plan, envs.codec.encode)
    resets = _resets(plan, cases)
    if plan.warm:
        for case in cases:
            envs.engine.cache.get(backbone, [case.image], [case.content_hash])
    watch = Stopwatch(backbone.device) if timed else None
    infos: list[dict[str, Any]] = []
    backbone.counts.clear()
    backbone.stopwatch = watch
    forget_peak(backbone.device)
    synchronise(backbone.device)
    began = time.perf_counter()
    if watch is None:
        _play(envs, actions, resets, infos)
    else:
        with watch.watch(envs.core):
            _play(envs, actions, resets, infos)
    synchronise(backbone.device)
    seconds = time.perf_counter() - began
    backbone.stopwatch = None
    run = EnvRun(
        seconds,
        dict(backbone.counts),
        None if watch is None else watch.seconds,
        peak_memory(backbone.device),
        {(s, t): float(infos[t]["dice"][s]) for t in range(plan.steps) for s in range(count)},
    )
    envs.close()
    del envs  # an engine and its episodes know each other: only the collector frees embeddings
    gc.collect()
    invalid = sum(int((~info["valid"]).sum()) for info in infos)
    if invalid or run.counts.get("rows") != plan.decodes:
        raise MedSegError(
            f"the environment decoded {run.counts.get('rows')} rows with {invalid} invalid actions "
            f"where {plan.decodes} rows were planned"
        )
    return run


def _resets(plan: Plan, cases: Sequence[Case]) -> list[dict[str, Any] | None]:
    """Options of the reset before each step, None where no episode begins."""
    keys: list[list[str | None]] = [[None] * len(plan.slots) for _ in range(plan.steps)]
    for slot in range(len(plan.slots)):
        for step, (episode, begins, _) in enumerate(plan.turns(slot)):
            if begins:
                keys[step][slot] = cases[episode.image].key
    return [
        {"case": row, "reset_mask": np.array([key is not None for key in row])}
        if any(row)
        else None
        for row in keys
    ]


def _play(
    envs: MedSegVectorEnv,
    actions: np.ndarray,
    resets: Sequence[dict[str, Any] | None],
    infos: list[dict[str, Any]],
) -> None:
    for row, reset in zip(actions, resets, strict=True):
        if reset is not None:
            envs.reset(options=reset)
        infos.append(envs.step(row)[-1])


# the baselines --------------------------------------------------------------------------------
@dataclass
class BaselineRun:
    """Measurements of a baseline over as much of the plan as it was given time for.

    Args:
        encode_seconds: In separate encodings; 0 where every click encodes.
        encoded: Images encoded separately.
        click_seconds: In clicks, mask and Dice included.
        clicks: Masks made.
        dice: After every step played.
    """

    encode_seconds: float = 0.0
    encoded: int = 0
    click_seconds: float = 0.0
    clicks: int = 0
    dice: Dice = field(default_factory=dict)

    def seconds_for(self, plan: Plan) -> float:
        """Time for the whole plan at the measured cost per image and per click."""
        images = 0 if plan.warm else plan.images_used
        per_image = self.encode_seconds / self.encoded if self.encoded else 0.0
        return per_image * images + self.click_seconds / self.clicks * plan.decodes


class _Session:
    """One slot of a baseline: prompts, logits and Dice, by the rules of an Episode."""

    def __init__(self, slot: int, plan: Plan, takes_mask_input: bool) -> None:
        self.slot, self._turns = slot, plan.turns(slot)
        self._takes_mask_input = takes_mask_input
        self._history: list[tuple] = []

    def advance(self) -> tuple[int, PromptsInForce | None]:
        """Take the next action: the image it is about, and what to ask where a mask is needed."""
        episode, begins, prompt = next(self._turns)
        if begins:
            self._history = [(None, (), None, 0.0)]
        if not is_decode(prompt):
            if not isinstance(prompt, Stop):
                self._history.pop()
            return episode.image, None
        box, points, logits, _ = self._history[-1]
        box, points = _with(prompt, box, points)
        self._asked = box, points
        fed = logits if self._takes_mask_input else None
        return episode.image, PromptsInForce(box, points, fed, box is None and len(points) == 1)

    def record(self, mask: np.ndarray, logits: Any, truth: np.ndarray) -> None:
        """Keep an answer."""
        total = int(mask.sum()) + int(truth.sum())
        dice = 2 * int((mask & truth).sum()) / total if total else 1.0
        self._history.append((*self._asked, logits, dice))

    @property
    def dice(self) -> float:
        """Dice now."""
        dice: float = self._history[-1][3]
        return dice


def _with(prompt: Prompt, box: AddBox | None, points: tuple[AddPoint, ...]) -> tuple:
    if isinstance(prompt, AddBox):
        return prompt, points
    return box, (*points, prompt)


def run_encoding_every_click(
    predictor: ReferencePredictor,
    plan: Plan,
    cases: Sequence[Case],
    seconds: float,
    takes_mask_input: bool,
) -> BaselineRun:
    """Baseline (a): slot after slot, every click encodes its image again.

    Args:
        predictor: The family's own.
        plan: What to do.
        cases: One per image of the plan.
        seconds: No click begins after so long.
        takes_mask_input: Feed the logits back, as the environment does.
    """
    run = BaselineRun()
    images = writable_images(cases)
    with predictor.precision():
        for slot in range(len(plan.slots)):
            session = _Session(slot, plan, takes_mask_input)
            for step in range(plan.steps):
                if run.clicks and run.click_seconds > seconds:
                    return run
                began = time.perf_counter()
                image, prompts = session.advance()
                if prompts is not None:
                    answer = predictor.click(images[image], prompts)
                    session.record(*answer, cases[image].mask)
                    run.clicks += 1
                run.dice[slot, step] = session.dice
                run.click_seconds += time.perf_counter() - began
    return run


def run_batch_calls(
    predictor: ReferencePredictor,
    plan: Plan,
    cases: Sequence[Case],
    seconds: float,
    takes_mask_input: bool,
) -> BaselineRun:
    """Baseline (b): every distinct image encoded once, one call of the predictor per step.

    Slots are played together, on a CPU four at a time until the time is used up: there the calls
    cost the same per image and per row however many they are given.
    """
    run = BaselineRun()
    device = predictor.device
    together = 4 if device.type == "cpu" else len(plan.slots)
    images = writable_images(cases)
    features: dict[int, Any] = {}
    with predictor.precision():
        for first in range(0, len(plan.slots), together):
            if run.clicks and run.encode_seconds + run.click_seconds > seconds:
                break
            slots = range(first, min(first + together, len(plan.slots)))
            sessions = [_Session(slot, plan, takes_mask_input) for slot in slots]
            for step in range(plan.steps):
                asked = [session.advance() for session in sessions]
                missing = list(dict.fromkeys(i for i, _ in asked if i not in features))
                for chunk in _chunks(missing, predictor.encode_batch):
                    synchronise(device)
                    began = time.perf_counter()
                    encoded = predictor.encode([images[i] for i in chunk])
                    synchronise(device)
                    run.encode_seconds += time.perf_counter() - began
                    run.encoded += len(chunk)
                    features.update(zip(chunk, encoded, strict=True))
                began = time.perf_counter()
                rows = [(s, i, p) for s, (i, p) in zip(sessions, asked, strict=True) if p]
                if rows:
                    answers = predictor.predict(
                        [features[i] for _, i, _ in rows], [p for _, _, p in rows]
                    )
                    for (session, i, _), answer in zip(rows, answers, strict=True):
                        session.record(*answer, cases[i].mask)
                run.clicks += len(rows)
                run.click_seconds += time.perf_counter() - began
                run.dice.update({(s.slot, step): s.dice for s in sessions})
    return run


def writable_images(cases: Sequence[Case]) -> list[np.ndarray]:
    """Copies of the images: the predictors warn about read-only ones."""
    return [case.image.copy() for case in cases]


def _chunks(items: list[int], size: int) -> Iterator[list[int]]:
    return (items[start : start + size] for start in range(0, len(items), size))
