"""A policy on a whole data set: by one process or many, on one host or a cluster; resumable, exact.

Cases go in batches of `num_envs`, always the same ones together, and idle workers are dealt one
batch after another. A batch begins with an empty embedding cache and is computed with the same
number of threads everywhere, so its numbers depend neither on who played it nor on what was played
before. Only the parent process writes, one batch at a time, so a run killed at any moment goes on
where it was, with as many workers as one likes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from medseg_agents import policies
from medseg_agents.evaluation.case_record import EpisodeRecord
from medseg_agents.evaluation.evaluate import Outcome, RecordFile
from medseg_agents.evaluation.failed_cases import FailedCase
from medseg_agents.evaluation.options import EvalOptions
from medseg_agents.evaluation.playing import Entry, SplitPlayer, SplitWork
from medseg_agents.evaluation.volumes.mask_files import MaskFolder, mask_folder
from medseg_agents.evaluation.volumes.records import ScoredVolumes
from medseg_agents.evaluation.volumes.scores import VolumeScorer
from medseg_agents.evaluation.volumes.selection import select, slots
from medseg_agents.runs.folder import RunFolder
from medseg_agents.runs.machine import describe_crew
from medseg_gym.cases import load_cases, played_split, split_note
from medseg_gym.errors import MedSegError
from medseg_gym.parallel import make_crew, share_out


@dataclass(frozen=True)
class Evaluated:
    """Result of a run.

    Args:
        records: One per case or volume that was played, in order.
        settings: That decide the numbers.
        usage: What this call asked of a model's server, summed over the workers; empty if nothing.
        failed: The other cases, in order; the same call plays them again.
        volumes: Scores of the volumes, where the cases are slices or volumes.
        machine: That it was played on, and by how many workers.
        masks: Folder of the masks, where they were to be written.
        note: What must be known of the split; "" for nothing.
    """

    records: list[EpisodeRecord]
    settings: dict[str, Any]
    usage: dict[str, float]
    failed: list[FailedCase]
    volumes: ScoredVolumes
    machine: str
    masks: MaskFolder | None = None
    note: str = ""


def run_evaluation(
    options: EvalOptions,
    out: str | Path,
    on_start: Callable[[int], None] | None = None,
    on_batch: Callable[[Sequence[Outcome]], None] | None = None,
) -> Evaluated:
    """Play every case once, those aside that `out/records.jsonl` holds as played already.

    Args:
        options: What is evaluated.
        out: Folder of the run.
        on_start: Called with the number of cases.
        on_batch: Called with the outcomes of every batch, the records found on the disk first.

    Raises:
        MedSegError: Cases, policy or backbone cannot be used, the folder holds another run, there
            is no such cluster, or `options.max_failures` cases failed.
    """
    source = load_cases(options.cases, options.split)
    options = replace(options, split=played_split(source, options.split))
    spec = policies.make(options.policy)
    selection = select(source, [spec], options.limit)
    keys = selection.keys_of(spec)
    if not keys:
        raise MedSegError(f"{options.cases!r} has no case in split {options.split!r}")
    if on_start:
        on_start(len(keys))
    folder = mask_folder(options, Path(out) / "masks")
    scorer = VolumeScorer(selection, folder)
    size = slots(spec, keys, options.num_envs, options.volume_envs)
    entry = Entry(options.policy, options.backbone, options.checkpoint, options.seed, size, 0)

    def open_file(_: int, settings: dict[str, Any]) -> RecordFile:
        run = RunFolder(out)
        run.refuse_other(options)
        file = RecordFile(run.records_file, settings)
        run.write_config(options)
        return file

    def on_outcomes(_: int, batch: Sequence[Outcome]) -> None:
        scorer.add(batch)
        if on_batch is not None:
            on_batch(batch)

    work = SplitWork(source, [entry], [keys], open_file, on_outcomes, options.max_failures)
    make = partial(SplitPlayer, options, options.device, options.threads, [entry])
    texts = [v for v in options.to_mapping().values() if isinstance(v, str)]
    crew = make_crew(make, options, work.count - 1, options.device, texts)
    usage = share_out(crew, work)
    order = {key: number for number, key in enumerate(keys)}
    records = sorted(work.files[0].records, key=lambda record: order[record.case])
    failed = sorted(work.files[0].failed, key=lambda one: order[one.case])
    if folder is not None:
        folder.close()
    machine = describe_crew(work.machine, crew.size)
    return Evaluated(
        records,
        work.settings[0],
        usage,
        failed,
        scorer.result(),
        machine,
        folder,
        split_note(source),
    )
