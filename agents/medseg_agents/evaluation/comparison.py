"""Play policies on the same cases and backbones, and write what came of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from medseg_agents import policies
from medseg_agents.evaluation.case_record import CaseRecord, EpisodeRecord, of_images
from medseg_agents.evaluation.evaluate import Outcome, RecordFile, file_name
from medseg_agents.evaluation.failed_cases import (
    FailedCase,
    need_played,
    pair_by_case,
)
from medseg_agents.evaluation.figures import draw_filmstrips_of, draw_overlays, plot_calls_used
from medseg_agents.evaluation.medsam_agent_results import write_json
from medseg_agents.evaluation.options import CompareOptions
from medseg_agents.evaluation.playing import Entry, SplitPlayer, SplitWork
from medseg_agents.evaluation.summary import as_tables, plot_dice_by_step, summarise_by, write_csv
from medseg_agents.evaluation.volumes.mask_files import mask_folder
from medseg_agents.evaluation.volumes.results import SLICES, WHOLE, VolumeResults
from medseg_agents.evaluation.volumes.scores import VolumeScorer
from medseg_agents.evaluation.volumes.selection import Selection, select, slots
from medseg_agents.policies.specs import PolicySpec
from medseg_agents.runs.machine import describe_crew
from medseg_gym.cases import CaseSource, left_out_note, load_cases, played_split, split_note
from medseg_gym.display.progress import make_progress
from medseg_gym.errors import MedSegError
from medseg_gym.parallel import make_crew, share_out


@dataclass(frozen=True)
class PlayedSeed:
    """Records of one policy on one backbone with one seed.

    Args:
        records: Of the cases or volumes that were played.
        failed: Of the others.
        scorer: Of the volumes.
    """

    records: list[EpisodeRecord]
    failed: list[FailedCase]
    scorer: VolumeScorer


@dataclass(frozen=True)
class PlayedBy:
    """Records of one policy on one backbone.

    Args:
        backbone: Its name.
        policy: Its name; two may have the same.
        plays: "slices", "volumes" as a whole, or "" for images of their own.
        seeds: What was played, seed by seed.
    """

    backbone: str
    policy: str
    plays: str
    seeds: list[PlayedSeed]

    @property
    def records(self) -> list[CaseRecord]:
        """Of the images or slices that were played, seed by seed; none of whole volumes."""
        return [record for seed in self.seeds for record in of_images(seed.records)]

    @property
    def failed(self) -> list[FailedCase]:
        """Of the others."""
        return [failed for seed in self.seeds for failed in seed.failed]


@dataclass
class Comparison:
    """Results of a comparison.

    Args:
        options: Of the comparison.
        rows: See `summarise`, one per backbone, policy and subset; none of policies that play whole
            volumes.
        records: By (backbone, policy name), of the cases that no policy failed on: the same for
            all.
        settings: Of every run.
        machine: It was measured on.
        left_out: As in `CaseSource`, and what the options left out.
        played: All that was played, in the order of the rows.
        volumes: Rows and scores in 3D, where the cases are volumes or slices of them.
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
        """Make the rows and `records`, of the cases that no policy failed on; then the volumes'.

        Raises:
            MedSegError: None is left.
        """
        failed = {f"{one.policy} on {one.backbone}": one.failed for one in self.played}
        whole = [one for one in self.played if one.plays == WHOLE]
        others = [one for one in self.played if one.plays != WHOLE]
        for one in whole:
            played = [record for seed in one.seeds for record in seed.records]
            need_played(played, failed, self.options.title)
        all_kept = pair_by_case([one.records for one in others], [one.failed for one in others])
        for one, kept in zip(others, all_kept, strict=True):
            need_played(kept, failed, self.options.title)
            labels = {"backbone": one.backbone, "policy": one.policy}
            by, max_steps = self.options.by, self.options.max_steps
            costs = self.options.call_costs
            rows = summarise_by(kept, by, max_steps, one.failed, costs, **labels)
            if count := len(one.records) - len(kept):
                rows[0]["notes"].append(f"{count} left out that failed in another row")
            self.rows += rows
            self.records[one.backbone, one.policy] = kept
        self.score_volumes()

    def score_volumes(self) -> None:
        """Make the rows of volumes, of those that failed for no policy."""
        seeds = [seed for played in self.played for seed in played.seeds]
        lost = frozenset().union(*(seed.scorer.failed for seed in seeds))
        for played in self.played:
            labels = {"backbone": played.backbone, "policy": played.policy, "plays": played.plays}
            scored = [seed.scorer.result(lost) for seed in played.seeds]
            self.volumes.add(scored, self.options.by, **labels)
        for seed in seeds:
            if seed.scorer.folder is not None:
                seed.scorer.folder.close()
                self.volumes.count_masks(seed.scorer.folder)

    def show(self, console: Console) -> None:
        """Print the tables."""
        if self.rows:
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
        if any(row["groups"] < 5 for row in (*self.rows, *self.volumes.rows)):
            console.print("No interval: fewer than 5 groups (patients, volumes or images).")
        self.show_left_out(console)

    def show_left_out(self, console: Console) -> None:
        """Print what is in none of the rows, if anything."""
        if self.note:
            console.print(self.note, markup=False, highlight=False, soft_wrap=True)

    @property
    def note(self) -> str:
        """Remarks on the cases: what was left out of them, and what their split is."""
        split = split_note(self.source) if self.source is not None else ""
        return " ".join(filter(None, (left_out_note(self.left_out), split)))

    def draw_overlays(self, path: Path) -> bool:
        """Draw the best, median and worst case of every row; see `draw_overlays`."""
        if self.source is None:
            return False
        return draw_overlays(self._records_by_row(), self.source, path)

    def _records_by_row(self) -> dict[str, list[CaseRecord]]:
        return {f"{policy} on {backbone}": r for (backbone, policy), r in self.records.items()}

    def as_json(self) -> dict[str, Any]:
        """Return what results.json and `--json` hold."""
        return {
            "machine": self.machine,
            "title": self.options.title,
            "settings": self.settings,
            "left_out": self.left_out,
            "note": self.note,
            "failed": [
                {"backbone": p.backbone, "policy": p.policy, "case": one.case, "failed": one.failed}
                for p in self.played
                for one in p.failed
            ],
            "rows": self.rows,
            **self.volumes.as_json(),
        }

    def write(self, out: Path) -> list[str]:
        """Write the results as JSON and CSV, and figures of them; with volumes their CSV as well.

        Returns:
            Names of the files.
        """
        out.mkdir(parents=True, exist_ok=True)
        write_json(self.as_json(), out / "results.json")
        context = {"machine": self.machine, "left_out": self.note}
        files = ["results.json"]
        if self.rows:
            write_csv([{**row, **context} for row in self.rows], out / "results.csv")
            plot_dice_by_step(self.rows, out / "dice_by_step.png", self.options.title)
            plot_calls_used(self._records_by_row(), out / "calls_used.png", self.options.title)
            files += ["results.csv", "dice_by_step.png", "calls_used.png"]
            if self.draw_overlays(out / "overlays.png"):
                files.append("overlays.png")
            if self.source is not None and self.options.filmstrips:
                draw_filmstrips_of(self.records, self.source, self.options, out / "filmstrips")
                files.append("filmstrips/")
        return [*files, *self.volumes.write(out, "results_volumes.csv", context)]


def compare(policy_specs: Sequence[PolicySpec], options: CompareOptions, out: Path) -> Comparison:
    """Play every policy on every backbone; killed half way, the same call goes on.

    Args:
        policy_specs: Policies to play.
        options: Cases, backbones and settings. Its `policies` are read by workers in processes of
            their own alone: they make the policies anew, by these texts.
        out: Folder; records are kept in `records/` under it.

    Raises:
        MedSegError: What cannot be loaded or played, or too many failed cases; nothing of it
            becomes a score.
    """
    source = load_cases(options.cases, options.split)
    options = replace(options, split=played_split(source, options.split))
    comparison = Comparison(options)
    chosen = select(source, policy_specs, options.limit, True, options.min_area)
    comparison.left_out, comparison.source = dict(chosen.left_out), source
    texts = _texts(policy_specs, options)
    specs = dict(zip(texts, policy_specs, strict=True))
    entries, keys = _entries(specs, options, chosen)
    scorers: dict[int, VolumeScorer] = {}
    runs: set[str] = set()
    with make_progress() as progress:
        total = sum(len(keys[entry.group]) for entry in entries)
        bar = progress.add_task("loading", total=total)

        def open_file(number: int, settings: dict[str, Any]) -> RecordFile:
            # Policies of one name may have other options, or be other classes.
            settings = {**settings, "policy_spec": specs[entries[number].policy].name}
            run = _run_name(settings)
            if run in runs:
                raise MedSegError(
                    f"policy {settings['policy']!r} with seed {settings['seed']} on "
                    f"{settings['backbone']!r} is named twice; name it once"
                )
            runs.add(run)
            comparison.settings.append(settings)
            scorers[number] = VolumeScorer(chosen, mask_folder(options, out / "masks" / run))
            return RecordFile(out / "records" / f"{run}.jsonl", settings)

        def on_outcomes(number: int, outcomes: Sequence[Outcome]) -> None:
            scorers[number].add(outcomes)
            entry = entries[number]
            description = f"{entry.backbone}, {specs[entry.policy].name}"
            progress.update(bar, advance=len(outcomes), description=description)

        work = SplitWork(source, entries, keys, open_file, on_outcomes, options.max_failures)
        make = partial(SplitPlayer, options, options.device, options.threads, entries)
        if options.alone:
            make = partial(make, specs=specs)
        own = (options.cases, options.reward, *options.backbones, *texts)
        crew = make_crew(make, options, work.count, options.device, own)
        share_out(crew, work)
    comparison.machine = describe_crew(work.machine, crew.size)
    seeds: dict[tuple[str, str], list[int]] = {}
    for number, entry in enumerate(entries):
        seeds.setdefault((entry.backbone, entry.policy), []).append(number)
    for backbone in options.backbones:
        for text, spec in specs.items():
            numbers = seeds[backbone, text]
            plays = WHOLE if spec.plays_volumes else SLICES if chosen.volumes else ""
            played = [
                _played_seed(work.files[n], scorers[n], keys[entries[n].group]) for n in numbers
            ]
            name = work.settings[numbers[0]]["policy"]
            comparison.played.append(PlayedBy(backbone, name, plays, played))
    comparison.summarise()
    return comparison


def _texts(policy_specs: Sequence[PolicySpec], options: CompareOptions) -> list[str]:
    """Names of the policies, by which workers make them where they are processes of their own."""
    if options.alone:
        return [f"{number}: {spec.name}" for number, spec in enumerate(policy_specs)]
    if [policies.make(text).name for text in options.policies] != [s.name for s in policy_specs]:
        raise MedSegError(
            "workers in processes of their own make policies by their names: give "
            "CompareOptions(policies=...) the specs of these policies, or play with one worker"
        )
    return list(options.policies)


def _entries(
    specs: Mapping[str, PolicySpec], options: CompareOptions, chosen: Selection
) -> tuple[list[Entry], list[list[str]]]:
    """Return what is played, and the keys of every group.

    Policies that see images as arrays are a group, for they are small, and encode a batch's images
    once. Language models are loaded one after another, and whole volumes share no embeddings.
    """
    entries: list[Entry] = []
    keys: list[list[str]] = []
    for backbone in options.backbones:
        shared: int | None = None
        for text, spec in specs.items():
            if spec.env_id == "MedSeg-v0" and shared is not None:
                group = shared
            else:
                group = len(keys)
                keys.append(chosen.keys_of(spec))
                shared = group if spec.env_id == "MedSeg-v0" else shared
            size = slots(spec, keys[group], options.num_envs, options.volume_envs)
            checkpoint = options.checkpoints.get(backbone)
            entries += [
                Entry(text, backbone, checkpoint, seed, size, group) for seed in options.seeds
            ]
    return entries, keys


def _played_seed(file: RecordFile, scorer: VolumeScorer, keys: Sequence[str]) -> PlayedSeed:
    order = {key: number for number, key in enumerate(keys)}
    records = sorted(file.records, key=lambda record: order[record.case])
    return PlayedSeed(records, sorted(file.failed, key=lambda one: order[one.case]), scorer)


def _run_name(settings: dict[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    stem = f"{settings['backbone']}_{settings['policy']}_seed{settings['seed']}"
    return f"{file_name(stem)}_{digest}"
