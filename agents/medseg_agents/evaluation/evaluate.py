"""Play every case of a split exactly once and keep one record per case.

Records go to a JSON-lines file, one batch at a time, so that a killed run goes on where it was.
A case that its policy gave up leaves a `FailedCase`, and is played again when the run goes on.
Policies draw from generators made of (seed, case key) and batches are always the same, so the
numbers do not depend on where a run was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import medseg_gym
from medseg_agents.evaluation.failed_cases import FailedCase, FailureLimit, failed_case
from medseg_gym.annotators.box import box_iou, tight_box
from medseg_gym.envs.vector import CoreVectorEnv
from medseg_gym.episodes import Episode, EpisodeSummary, metrics
from medseg_gym.errors import MedSegError
from medseg_gym.policy import GivenUp, Played, Policy, caveats, play_or_give_up
from medseg_gym.prompts import AddBox, encode_tool_call
from medseg_gym.storage.atomic_write import atomic_write
from medseg_gym.storage.line_files import append_rows, read_rows


@dataclass(frozen=True)
class CaseRecord:
    """Record of one policy on one case.

    Args:
        case: Key.
        group: Patient, volume or image.
        modality: Of the image.
        target: What was to be segmented.
        synthetic: True for synthetic images.
        area: Share of the image that the target covers.
        dice: Before the first step and after each, so one more than `tools`.
        iou: Likewise.
        hd95: Of the final mask, in `unit`; None where one of the masks is empty, so that there is
            no distance.
        nsd: Of the final mask at a tolerance of `metrics.NSD_TOLERANCE` in `unit`.
        unit: "mm", or "px" for a case without spacing.
        boundary_iou: Of the final mask.
        tools: Used, in order; "" for an unreadable action.
        invalid: Actions that changed nothing, those in `cut_off` aside.
        stopped: Whether the policy stopped by itself.
        episode_return: Sum of rewards.
        seconds: Share of the wall time.
        notes: What a table must say beside it (see `medseg_gym.policy.caveats`).
        batch: Number of the batch it was played in.
        batch_size: Cases in that batch.
        first_box_iou: IoU of the first box drawn with the tight box round the target; None where
            no box was drawn or there is no target.
        calls: What was asked for in each step, as a tool call on the grid of 1000 whatever the
            coordinates of the view; "" for an unreadable action.
        answers: What a model said in each step, as it said it; empty for policies without words.
        cut_off: Steps lost to an answer that ran into its limit before it held a call.
    """

    case: str
    group: str
    modality: str
    target: str
    synthetic: bool
    area: float
    dice: tuple[float, ...]
    iou: tuple[float, ...]
    hd95: float | None
    nsd: float
    unit: str
    boundary_iou: float
    tools: tuple[str, ...]
    invalid: int
    stopped: bool
    episode_return: float
    seconds: float
    notes: tuple[str, ...]
    batch: int
    batch_size: int
    first_box_iou: float | None = None
    calls: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    cut_off: int = 0

    def __post_init__(self) -> None:
        """Refuse what would make every mean of a table NaN.

        Raises:
            MedSegError: A score or measurement that is not a finite number.
        """
        measured: dict[str, Sequence[Any]] = {"dice": self.dice, "iou": self.iou}
        for name in ("area", "nsd", "boundary_iou", "episode_return", "seconds"):
            measured[name] = (getattr(self, name),)
        if self.hd95 is not None:
            measured["hd95"] = (self.hd95,)
        for name, numbers in measured.items():
            if not all(isinstance(x, (int, float)) and math.isfinite(x) for x in numbers):
                raise MedSegError(
                    f"case {self.case!r}: {name} must be finite, got {getattr(self, name)}"
                )

    @property
    def turns(self) -> int:
        """Actions taken."""
        return len(self.tools)

    @property
    def summary(self) -> EpisodeSummary:
        """Numbers of the episode."""
        return EpisodeSummary(
            case=self.case,
            dice=self.dice[-1],
            iou=self.iou[-1],
            start_dice=self.dice[0],
            first_dice=self.dice_after(1),
            episode_return=self.episode_return,
            turns=self.turns,
            invalid=self.invalid,
            cut_off=self.cut_off,
            stopped=self.stopped,
            done=True,
            stop_regret=metrics.stop_regret(self.dice),
        )

    def dice_after(self, step: int) -> float:
        """Dice after `step` actions; a finished episode keeps its last one."""
        return self.dice[min(step, len(self.dice) - 1)]


Outcome = CaseRecord | FailedCase
"""Record of a case, played or failed."""


def outcome_of(
    one: Played | GivenUp, policy: Policy, envs: CoreVectorEnv, batch_size: int
) -> Outcome:
    """Return the record of an episode, finished or given up; see `record_of`."""
    if isinstance(one, GivenUp):
        return failed_case(one, batch_size)
    return record_of(one, policy, envs, batch_size)


def record_of(played: Played, policy: Policy, envs: CoreVectorEnv, batch_size: int) -> CaseRecord:
    """Return the record of a finished episode.

    Args:
        played: The episode.
        policy: Who played.
        envs: Where.
        batch_size: Cases in its batch.
    """
    episode, case, summary = played.episode, played.episode.case, played.summary
    mask = episode.state.mask.cpu().numpy()
    surface = metrics.surface_scores(mask, case.mask, case.spacing)
    return CaseRecord(
        case=case.key,
        group=case.group,
        modality=case.modality,
        target=case.target,
        synthetic=case.synthetic,
        area=case.area_fraction,
        dice=(episode.start_dice, *(step.dice for step in episode.steps)),
        iou=(episode.start_iou, *(step.iou for step in episode.steps)),
        hd95=surface.hd95 if math.isfinite(surface.hd95) else None,
        nsd=surface.nsd,
        unit=surface.unit,
        boundary_iou=metrics.boundary_iou(mask, case.mask),
        tools=tuple(step.tool for step in episode.steps),
        invalid=summary.invalid,
        stopped=summary.stopped,
        episode_return=summary.episode_return,
        seconds=played.seconds,
        notes=tuple(caveats(policy, envs.backbone, [episode])),
        batch=played.batch,
        batch_size=batch_size,
        first_box_iou=_first_box_iou(episode),
        calls=tuple(encode_tool_call(s.prompt) if s.prompt else "" for s in episode.steps),
        answers=played.answers,
        cut_off=summary.cut_off,
    )


def _first_box_iou(episode: Episode) -> float | None:
    drawn = next((s.prompt for s in episode.steps if isinstance(s.prompt, AddBox)), None)
    target = tight_box(episode.case.mask)
    return None if drawn is None or target is None else box_iou(drawn, target)


class RecordFile:
    """Records of one run on disk; survives being killed at any moment.

    The first line holds the settings of the run. A batch is written whole, and what is left of a
    torn one is dropped when the file is opened again. A failed case that was played again has a
    further line, which holds.

    Args:
        path: Of the JSON-lines file.
        settings: Everything that decides the numbers; an existing file must hold the same.

    Attributes:
        records: Of the cases that were played.
        failed: Of those that were not.

    Raises:
        MedSegError: The file belongs to other settings, or is not such a file.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any]) -> None:
        self.path = Path(path)
        header = {"settings": settings}
        text = json.dumps(header, sort_keys=True)
        lines = read_rows(self.path, way_out="remove that line to play its batch again")
        if not lines and self.path.exists() and not text.startswith(self._torn_header()):
            raise MedSegError(f"{self.path} holds something else; give another output folder")
        self.records: list[CaseRecord] = []
        self.failed: list[FailedCase] = []
        if lines and lines[0] != json.loads(text):
            raise MedSegError(
                f"{self.path} holds a run with other settings; give another output folder or "
                "delete the file"
            )
        outcomes_by_batch: dict[int, dict[str, Outcome]] = {}
        for number, line in enumerate(lines[1:], start=2):
            try:
                record = _read_record(line)
            except (ValueError, TypeError) as error:
                raise MedSegError(f"{self.path}:{number}: not a record ({error})") from None
            outcomes_by_batch.setdefault(record.batch, {})[record.case] = record
        kept: list[Outcome] = []
        for batch in sorted(outcomes_by_batch):
            outcomes = list(outcomes_by_batch[batch].values())
            if len(outcomes) == outcomes[0].batch_size:
                kept += outcomes
        self._take(kept)
        whole = [text, *(json.dumps(asdict(outcome), allow_nan=False) for outcome in kept)]
        content = "".join(line + "\n" for line in whole).encode()
        # Whatever is left of a torn batch goes, were it half a line: nothing is added to that.
        if not self.path.exists() or self.path.read_bytes() != content:
            atomic_write(self.path, content)
        self._size = self.path.stat().st_size

    def _torn_header(self) -> str:
        return self.path.read_bytes().rstrip(b"\0").decode(errors="replace")

    @property
    def played(self) -> frozenset[str]:
        """Keys of the cases that need not be played again."""
        return frozenset(record.case for record in self.records)

    def _take(self, outcomes: Sequence[Outcome]) -> None:
        again = {one.case for one in outcomes}
        self.failed = [one for one in self.failed if one.case not in again]
        for one in outcomes:
            if isinstance(one, FailedCase):
                self.failed.append(one)
            else:
                self.records.append(one)

    def append(self, batch: Sequence[Outcome]) -> None:
        """Add a whole batch, or cases of one that failed before, and force them to the disk.

        Raises:
            MedSegError: Another program has written to the file meanwhile, or the disk is full;
                nothing is added.
        """
        if self.path.stat().st_size != self._size:
            raise MedSegError(
                f"{self.path}: another program writes to this file, and cases would stand in it "
                "twice; let one of them end, then give the same command again"
            )
        append_rows(self.path, [asdict(record) for record in batch], durable=True)
        self._size = self.path.stat().st_size
        self._take(batch)


def _read_record(values: dict[str, Any]) -> Outcome:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return FailedCase(**fields) if "failed" in fields else CaseRecord(**fields)


def evaluate(
    envs: CoreVectorEnv,
    policy: Policy,
    keys: Sequence[str] | None = None,
    seed: int = 0,
    file: RecordFile | None = None,
    on_batch: Callable[[Sequence[Outcome]], None] | None = None,
    max_failures: int = 1,
) -> list[CaseRecord]:
    """Play cases once each.

    Args:
        envs: From `medseg_gym.policy.make_envs`, made for the policy's view.
        policy: Who plays.
        keys: Cases to play; None plays the whole source.
        seed: Of the policy.
        file: Where records are kept; cases found in it are not played again, those aside that
            failed.
        on_batch: Called with the outcomes of every batch, the records found in `file` first.
        max_failures: The failed case with this number ends the run. Where it is above 1, look at
            `file.failed` beside what is returned.

    Returns:
        One record per case that was played, in order of cases.

    Raises:
        MedSegError: `max_failures` is reached; what was played is in `file`.
    """
    keys = list(envs.source.keys) if keys is None else list(keys)
    records = list(file.records) if file else []
    if records and on_batch:
        on_batch(records)
    limit, size = FailureLimit(max_failures), envs.num_envs
    done = file.played if file else frozenset()
    for batch in play_or_give_up(envs, policy, keys, seed, done):
        start = batch[0].batch * size
        whole = len(keys[start : start + size])
        fresh = [outcome_of(one, policy, envs, whole) for one in batch]
        if file:
            file.append(fresh)
        records += [one for one in fresh if isinstance(one, CaseRecord)]
        if on_batch:
            on_batch(fresh)
        limit.add(fresh)
    order = {key: number for number, key in enumerate(keys)}
    return sorted(records, key=lambda record: order[record.case])


def run_settings(envs: CoreVectorEnv, policy: Policy, keys: Sequence[str], seed: int) -> dict:
    """Everything that decides the numbers of a run, for `RecordFile`.

    A policy says with `settings` (a mapping, JSON) what its name does not: how it samples, say.
    What the reader left out of the cases is `left_out`, so that every table of the run can say it.
    """
    options = envs.options
    left_out = dict(envs.source.left_out)
    return {
        "version": medseg_gym.__version__,
        "nsd_tolerance": metrics.NSD_TOLERANCE,
        "boundary_ratio": metrics.BOUNDARY_RATIO,
        "policy": policy.name,
        "seed": seed,
        "num_envs": envs.num_envs,
        "cases": options.cases if isinstance(options.cases, str) else envs.source.name,
        "split": options.split,
        "keys": hashlib.blake2b("\n".join(keys).encode(), digest_size=8).hexdigest(),
        "backbone": envs.backbone.name,
        "checkpoint": None if options.checkpoint is None else str(options.checkpoint),
        "device": str(envs.backbone.device),
        **{
            name: getattr(options, name)
            for name in ("max_steps", "prompt_memory", "mask_input", "multimask")
        },
        **envs.view.settings,
        **({"left_out": left_out} if left_out else {}),
        **({"policy_settings": policy.settings} if hasattr(policy, "settings") else {}),
        "reward": options.reward if isinstance(options.reward, str) else repr(options.reward),
    }
