"""Play policies on the same cases and backbones, and write what came of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from medseg_agents.evaluation.evaluate import CaseRecord, RecordFile, evaluate, run_settings
from medseg_agents.evaluation.failed_cases import (
    MAX_FAILURES,
    FailedCase,
    need_played,
    pair_by_case,
)
from medseg_agents.evaluation.medsam_agent_results import write_json
from medseg_agents.evaluation.summary import as_tables, plot_dice_by_step, summarise_by, write_csv
from medseg_agents.policies.specs import PolicySpec
from medseg_agents.runs.machine import describe_machine
from medseg_gym.cases import CaseSource, left_out_note
from medseg_gym.errors import MedSegError
from medseg_gym.policy import close_policy, make_envs

MANY_CASES = 1000
FEW_CASES = 200
"""Of a source of more than `MANY_CASES` cases only the first `FEW_CASES` are played by default."""


@dataclass(frozen=True, kw_only=True)
class Arena:
    """Cases, backbones and settings of a comparison.

    Args:
        cases: Case spec.
        split: Of it.
        backbones: Names.
        checkpoints: Weight file by backbone.
        device: Of the backbones.
        max_steps: Actions per episode.
        num_envs: Slots.
        seeds: Of the policies; each plays every case once per seed.
        limit: First so many cases; None takes `FEW_CASES` of a source of over `MANY_CASES`.
        min_area: Leave out targets below this share of the image.
        by: Rows per "modality", "group" or "target".
        max_failures: Failed cases that end the run of a policy.
    """

    cases: str = "samples"
    split: str = "test"
    backbones: tuple[str, ...] = ("pocket",)
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    device: str = "auto"
    max_steps: int = 5
    num_envs: int = 16
    seeds: tuple[int, ...] = (0,)
    limit: int | None = None
    min_area: float = 0.0
    by: str = "modality"
    max_failures: int = MAX_FAILURES

    @property
    def title(self) -> str:
        """Of tables and plots."""
        area = f", area >= {self.min_area:.1%}" if self.min_area else ""
        return f"{self.cases}, {self.split} split{area}"

    def limit_of(self, source: CaseSource) -> int | None:
        """Return how many cases of a source are looked at; None is all."""
        return FEW_CASES if self.limit is None and len(source) > MANY_CASES else self.limit

    def left_out(self, source: CaseSource, keys: Sequence[str]) -> dict[str, int]:
        """Return counts of cases that the reader and `min_area` left out, by reason.

        Args:
            source: The cases.
            keys: Of them that are played.
        """
        small = len(source.keys[: self.limit_of(source)]) - len(keys)
        reason = f"cases of this split under {self.min_area:.2%} of their image (--min-area)"
        return {**source.left_out, **({reason: small} if small else {})}

    def keys(self, source: CaseSource) -> list[str]:
        """Keys of the cases to play.

        Raises:
            MedSegError: None is left.
        """
        keys = list(source.keys[: self.limit_of(source)])
        if self.min_area:
            keys = [k for i, k in enumerate(keys) if source[i].area_fraction >= self.min_area]
        if not keys:
            raise MedSegError(f"no case of {source.name!r} covers {self.min_area:.2%} of its image")
        return keys


@dataclass(frozen=True)
class PlayedBy:
    """Records of one policy on one backbone.

    Args:
        backbone: Its name.
        policy: Its name; two may have the same.
        records: Of the cases that were played, seed by seed.
        failed: Of the others.
    """

    backbone: str
    policy: str
    records: list[CaseRecord]
    failed: list[FailedCase]


@dataclass
class Comparison:
    """Results of a comparison.

    Args:
        arena: Where.
        rows: See `summarise`, one per backbone, policy and subset.
        records: By (backbone, policy name), of the cases that no policy failed on: the same for
            all.
        settings: Of every run.
        machine: It was measured on.
        left_out: As in `CaseSource`, and what the arena left out.
        played: All that was played, in the order of the rows.
    """

    arena: Arena
    rows: list[dict[str, Any]] = field(default_factory=list)
    records: dict[tuple[str, str], list[CaseRecord]] = field(default_factory=dict)
    settings: list[dict[str, Any]] = field(default_factory=list)
    machine: str = ""
    left_out: dict[str, int] = field(default_factory=dict)
    played: list[PlayedBy] = field(default_factory=list)

    def summarise(self) -> None:
        """Make the rows and `records`, of the cases that no policy failed on.

        Raises:
            MedSegError: None is left.
        """
        failed = {f"{one.policy} on {one.backbone}": one.failed for one in self.played}
        all_kept = pair_by_case(
            [one.records for one in self.played], [one.failed for one in self.played]
        )
        for one, kept in zip(self.played, all_kept, strict=True):
            need_played(kept, failed, self.arena.title)
            labels = {"backbone": one.backbone, "policy": one.policy}
            by, max_steps = self.arena.by, self.arena.max_steps
            rows = summarise_by(kept, by, max_steps, one.failed, **labels)
            if count := len(one.records) - len(kept):
                rows[0]["notes"].append(f"{count} left out that failed in another row")
            self.rows += rows
            self.records[one.backbone, one.policy] = kept

    def show(self, console: Console) -> None:
        """Print the tables."""
        for table in as_tables(self.rows, self.arena.title, self.arena.max_steps):
            console.print(table)
        console.print(f"Measured on: {self.machine}")
        if any(one.failed for one in self.played):
            console.print("Every row is of the cases that failed in none of them.")
        for one in self.played:
            for case in one.failed:
                reason = f"failed: {one.backbone}, {one.policy}, {case.case}: {case.failed}"
                console.print(reason, soft_wrap=True, markup=False)
        if any(row["groups"] < 5 for row in self.rows):
            console.print("No interval: fewer than 5 groups (patients, volumes or images).")
        self.show_left_out(console)

    def show_left_out(self, console: Console) -> None:
        """Print what is in none of the rows, if anything."""
        if note := left_out_note(self.left_out):
            console.print(note, markup=False, highlight=False, soft_wrap=True)

    def write(self, out: Path) -> None:
        """Write results.json, results.csv and dice_by_step.png."""
        out.mkdir(parents=True, exist_ok=True)
        results = {
            "machine": self.machine,
            "title": self.arena.title,
            "settings": self.settings,
            "left_out": self.left_out,
            "failed": [
                {"backbone": p.backbone, "policy": p.policy, "case": one.case, "failed": one.failed}
                for p in self.played
                for one in p.failed
            ],
            "rows": self.rows,
        }
        write_json(results, out / "results.json")
        context = {"machine": self.machine, "left_out": left_out_note(self.left_out)}
        write_csv([{**row, **context} for row in self.rows], out / "results.csv")
        plot_dice_by_step(self.rows, out / "dice_by_step.png", self.arena.title)


def compare(
    policy_specs: Sequence[PolicySpec], arena: Arena, out: Path, console: Console
) -> Comparison:
    """Play every policy on every backbone; killed half way, the same call goes on.

    Args:
        policy_specs: Policies to play.
        arena: Where.
        out: Folder; records are kept in `records/` under it.
        console: For the progress bar.

    Raises:
        MedSegError: What cannot be loaded or played, or too many failed cases; nothing of it
            becomes a score.
    """
    comparison = Comparison(arena)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task("loading", total=None)
        keys: list[str] | None = None
        for backbone in arena.backbones:
            for policy_spec in policy_specs:
                envs = make_envs(
                    arena.num_envs,
                    policy_spec.env_id,
                    cases=arena.cases,
                    split=arena.split,
                    backbone=backbone,
                    checkpoint=arena.checkpoints.get(backbone),
                    device=arena.device,
                    max_steps=arena.max_steps,
                    **policy_spec.view,
                )
                comparison.machine = describe_machine(str(envs.backbone.device))
                if keys is None:
                    keys = arena.keys(envs.source)
                    comparison.left_out = arena.left_out(envs.source, keys)
                    runs = len(arena.backbones) * len(policy_specs) * len(arena.seeds)
                    progress.update(bar, total=len(keys) * runs)
                policy = policy_spec.build(envs)
                records: list[CaseRecord] = []
                failed: list[FailedCase] = []
                for seed in arena.seeds:
                    progress.update(bar, description=f"{backbone}, {policy_spec.name}")
                    settings = run_settings(envs, policy, keys, seed)
                    comparison.settings.append(settings)
                    file = RecordFile(out / "records" / _file_name(settings), settings)
                    records += evaluate(
                        envs,
                        policy,
                        keys,
                        seed,
                        file,
                        lambda batch: progress.advance(bar, len(batch)),
                        arena.max_failures,
                    )
                    failed += file.failed
                comparison.played.append(PlayedBy(backbone, policy.name, records, failed))
                close_policy(policy)
                envs.close()
    comparison.summarise()
    return comparison


def _file_name(settings: dict[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    stem = f"{settings['backbone']}_{settings['policy']}_seed{settings['seed']}"
    return re.sub(r"[^\w.=-]", "-", stem)[-120:] + f"_{digest}.jsonl"
