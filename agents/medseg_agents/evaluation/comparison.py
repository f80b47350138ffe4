"""Play policies on the same cases and backbones, and write what came of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from medseg_agents.evaluation.case_record import CaseRecord
from medseg_agents.evaluation.evaluate import RecordFile, evaluate, run_settings
from medseg_agents.evaluation.failed_cases import (
    FailedCase,
    need_played,
    pair_by_case,
)
from medseg_agents.evaluation.figures import draw_overlays
from medseg_agents.evaluation.medsam_agent_results import write_json
from medseg_agents.evaluation.options import CompareOptions
from medseg_agents.evaluation.summary import as_tables, plot_dice_by_step, summarise_by, write_csv
from medseg_agents.evaluation.volumes.mask_files import MaskFolder
from medseg_agents.evaluation.volumes.results import VolumeResults
from medseg_agents.evaluation.volumes.scores import PlayedSlices, score_volumes
from medseg_agents.policies.specs import PolicySpec
from medseg_agents.runs.machine import describe_machine
from medseg_gym.cases import CaseSource, VolumeCase, left_out_note
from medseg_gym.policy import close_policy, make_envs


@dataclass(frozen=True)
class PlayedSeed:
    """Records of one policy on one backbone with one seed.

    Args:
        run: Name of its file of records, without the ending.
        records: Of the cases that were played.
        failed: Of the others.
    """

    run: str
    records: list[CaseRecord]
    failed: list[FailedCase]


@dataclass(frozen=True)
class PlayedBy:
    """Records of one policy on one backbone.

    Args:
        backbone: Its name.
        policy: Its name; two may have the same.
        seeds: What was played, seed by seed.
    """

    backbone: str
    policy: str
    seeds: list[PlayedSeed]

    @property
    def records(self) -> list[CaseRecord]:
        """Of the cases that were played, seed by seed."""
        return [record for seed in self.seeds for record in seed.records]

    @property
    def failed(self) -> list[FailedCase]:
        """Of the others."""
        return [failed for seed in self.seeds for failed in seed.failed]


@dataclass
class Comparison:
    """Results of a comparison.

    Args:
        options: Of the comparison.
        rows: See `summarise`, one per backbone, policy and subset.
        records: By (backbone, policy name), of the cases that no policy failed on: the same for
            all.
        settings: Of every run.
        machine: It was measured on.
        left_out: As in `CaseSource`, and what the options left out.
        played: All that was played, in the order of the rows.
        volumes: Rows and scores in 3D, where the cases are slices of volumes.
        source: Of the cases.
    """

    options: CompareOptions
    rows: list[dict[str, Any]] = field(default_factory=list)
    records: dict[tuple[str, str], list[CaseRecord]] = field(default_factory=dict)
    settings: list[dict[str, Any]] = field(default_factory=list)
    machine: str = ""
    left_out: dict[str, int] = field(default_factory=dict)
    played: list[PlayedBy] = field(default_factory=list)
    volumes: VolumeResults = field(default_factory=VolumeResults)
    source: CaseSource | None = None

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
            need_played(kept, failed, self.options.title)
            labels = {"backbone": one.backbone, "policy": one.policy}
            by, max_steps = self.options.by, self.options.max_steps
            rows = summarise_by(kept, by, max_steps, one.failed, **labels)
            if count := len(one.records) - len(kept):
                rows[0]["notes"].append(f"{count} left out that failed in another row")
            self.rows += rows
            self.records[one.backbone, one.policy] = kept

    def score_volumes(
        self,
        source: CaseSource,
        keys: Sequence[str],
        out: Path,
        on_progress: Callable[[int, int], None],
    ) -> None:
        """Score the volumes of the cases that no policy failed on, and write masks if asked to.

        Args:
            source: The cases.
            keys: Those that were played.
            out: Folder; masks go to `masks/RUN/` in it.
            on_progress: Called with the volumes that are done and all of them.
        """
        options = self.options
        failed = [failed for played in self.played for failed in played.failed]
        missing = {one.case for one in failed}
        seeds = [seed for played in self.played for seed in played.seeds]
        folders = [
            MaskFolder(out / "masks" / seed.run, options.save, options.keep_identifiers)
            for seed in seeds
        ]

        def write(run: int, case: VolumeCase, mask: np.ndarray) -> None:
            folders[run].write_volume(case, mask)

        scored = score_volumes(
            source,
            keys,
            [
                PlayedSlices([r for r in seed.records if r.case not in missing], failed)
                for seed in seeds
            ],
            options.cut(source) if source.volumes is not None else (),
            write if options.save_masks else None,
            on_progress,
        )
        for played in self.played:
            own, scored = scored[: len(played.seeds)], scored[len(played.seeds) :]
            labels = {"backbone": played.backbone, "policy": played.policy}
            self.volumes.add(own, options.by, **labels)
        if options.save_masks:
            for folder, seed in zip(folders, seeds, strict=True):
                folder.write_images(seed.records)
                folder.close()
                self.volumes.count_masks(folder)

    def show(self, console: Console) -> None:
        """Print the tables."""
        for table in as_tables(self.rows, self.options.title, self.options.max_steps):
            console.print(table)
        self.volumes.show(console, self.options.title)
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

    def draw_overlays(self, path: Path) -> bool:
        """Draw the best, median and worst case of every row; see `draw_overlays`."""
        if self.source is None:
            return False
        named = {f"{policy} on {backbone}": r for (backbone, policy), r in self.records.items()}
        return draw_overlays(named, self.source, path)

    def write(self, out: Path) -> list[str]:
        """Write results.json, results.csv, dice_by_step.png, overlays.png; of volumes their CSV.

        Returns:
            Names of the files.
        """
        out.mkdir(parents=True, exist_ok=True)
        results = {
            "machine": self.machine,
            "title": self.options.title,
            "settings": self.settings,
            "left_out": self.left_out,
            "failed": [
                {"backbone": p.backbone, "policy": p.policy, "case": one.case, "failed": one.failed}
                for p in self.played
                for one in p.failed
            ],
            "rows": self.rows,
            **self.volumes.as_json(),
        }
        write_json(results, out / "results.json")
        context = {"machine": self.machine, "left_out": left_out_note(self.left_out)}
        write_csv([{**row, **context} for row in self.rows], out / "results.csv")
        plot_dice_by_step(self.rows, out / "dice_by_step.png", self.options.title)
        files = ["results.json", "results.csv", "dice_by_step.png"]
        if self.draw_overlays(out / "overlays.png"):
            files.append("overlays.png")
        return [*files, *self.volumes.write(out, "results_volumes.csv", context)]


def compare(
    policy_specs: Sequence[PolicySpec], options: CompareOptions, out: Path, console: Console
) -> Comparison:
    """Play every policy on every backbone; killed half way, the same call goes on.

    Args:
        policy_specs: Policies to play.
        options: Cases, backbones and settings; its `policies` are not read.
        out: Folder; records are kept in `records/` under it.
        console: For the progress bar.

    Raises:
        MedSegError: What cannot be loaded or played, or too many failed cases; nothing of it
            becomes a score.
    """
    comparison = Comparison(options)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bar = progress.add_task("loading", total=None)
        keys: list[str] | None = None
        for backbone in options.backbones:
            for policy_spec in policy_specs:
                envs = make_envs(
                    options.num_envs,
                    policy_spec.env_id,
                    cases=options.cases,
                    split=options.split,
                    backbone=backbone,
                    checkpoint=options.checkpoints.get(backbone),
                    device=options.device,
                    max_steps=options.max_steps,
                    reward=options.reward,
                    **policy_spec.view,
                )
                comparison.machine = describe_machine(str(envs.backbone.device))
                if keys is None:
                    source = comparison.source = envs.source
                    keys = options.keys(source)
                    comparison.left_out = options.left_out(source, keys)
                    runs = len(options.backbones) * len(policy_specs) * len(options.seeds)
                    progress.update(bar, total=len(keys) * runs)
                policy = policy_spec.build(envs)
                seeds: list[PlayedSeed] = []
                for seed in options.seeds:
                    progress.update(bar, description=f"{backbone}, {policy_spec.name}")
                    settings = run_settings(envs, policy, keys, seed, keep_masks=True)
                    comparison.settings.append(settings)
                    run = _run_name(settings)
                    file = RecordFile(out / "records" / f"{run}.jsonl", settings)
                    records = evaluate(
                        envs,
                        policy,
                        keys,
                        seed,
                        file,
                        lambda batch: progress.advance(bar, len(batch)),
                        options.max_failures,
                        keep_masks=True,
                    )
                    seeds.append(PlayedSeed(run, records, list(file.failed)))
                comparison.played.append(PlayedBy(backbone, policy.name, seeds))
                close_policy(policy)
                envs.close()
        comparison.summarise()
        if keys is not None:
            comparison.score_volumes(
                source,
                keys,
                out,
                lambda done, total: progress.update(
                    bar, description="volumes in 3D", completed=done, total=total
                ),
            )
    return comparison


def _run_name(settings: dict[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    stem = f"{settings['backbone']}_{settings['policy']}_seed{settings['seed']}"
    return re.sub(r"[^\w.=-]", "-", stem)[-120:] + f"_{digest}"
