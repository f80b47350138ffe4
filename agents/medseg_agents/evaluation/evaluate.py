"""Play every case of a split exactly once and keep one record per case.

Records go to a JSON-lines file, one batch at a time, so that a killed run goes on where it was.
A case that its policy gave up leaves a `FailedCase`, and is played again when the run goes on.
Policies draw from generators made of (seed, case key) and batches are always the same, so the
numbers do not depend on where a run was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import medseg_gym
from medseg_agents.evaluation.case_record import CaseRecord, EpisodeRecord, record_of
from medseg_agents.evaluation.failed_cases import FailedCase, FailureLimit, failed_case
from medseg_agents.evaluation.volumes.episode_record import VolumeEpisodeRecord, record_of_volume
from medseg_gym.cases import played_split
from medseg_gym.envs.vector import CoreVectorEnv
from medseg_gym.envs.volumes.options import VolumeOptions
from medseg_gym.episodes import metrics
from medseg_gym.episodes.volumes import VolumeEpisode
from medseg_gym.errors import MedSegError
from medseg_gym.policy import GivenUp, Played, Policy, play_or_give_up
from medseg_gym.storage.atomic_write import atomic_write
from medseg_gym.storage.line_files import append_rows, read_rows

Outcome = EpisodeRecord | FailedCase
"""Record of an image, a slice or a volume, played or failed."""


def outcome_of(
    one: Played | GivenUp,
    policy: Policy,
    envs: CoreVectorEnv,
    batch_size: int,
    keep_mask: bool = False,
) -> Outcome:
    """Return the record of an episode, finished or given up; see `record_of`.

    Records of volumes hold their masks always, for they are scored in three dimensions by them.
    """
    if isinstance(one, GivenUp):
        return failed_case(one, batch_size)
    if isinstance(one.episode, VolumeEpisode):
        return record_of_volume(one, policy, envs, batch_size)
    return record_of(one, policy, envs, batch_size, keep_mask)


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
        self.records: list[EpisodeRecord] = []
        self.failed: list[FailedCase] = []
        if lines and lines[0] != json.loads(text):
            raise MedSegError(
                f"{self.path} holds a run with other settings; give another output folder or "
                "delete the file"
            )
        outcomes_by_batch: dict[int, dict[str, Outcome]] = {}
        for number, line in enumerate(lines[1:], start=2):
            try:
                record = read_record(line)
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


def read_record(values: dict[str, Any]) -> Outcome:
    """Return the outcome that a line of a `RecordFile` holds.

    Raises:
        ValueError: A score that is not finite.
        TypeError: It is no record.
    """
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    if "failed" in fields:
        return FailedCase(**fields)
    return VolumeEpisodeRecord(**fields) if "shape" in fields else CaseRecord(**fields)


def evaluate(
    envs: CoreVectorEnv,
    policy: Policy,
    keys: Sequence[str] | None = None,
    seed: int = 0,
    file: RecordFile | None = None,
    on_batch: Callable[[Sequence[Outcome]], None] | None = None,
    max_failures: int = 1,
    keep_masks: bool = False,
) -> list[EpisodeRecord]:
    """Play cases once each.

    Args:
        envs: From `medseg_gym.policy.make_envs`, made for the policy's view; of images or volumes.
        policy: Who plays.
        keys: Cases or volumes to play; None plays the whole source.
        seed: Of the policy.
        file: Where records are kept; cases found in it are not played again, those aside that
            failed.
        on_batch: Called with the outcomes of every batch, the records found in `file` first.
        max_failures: The failed case with this number ends the run. Where it is above 1, look at
            `file.failed` beside what is returned.
        keep_masks: Keep the final masks in the records.

    Returns:
        One record per case that was played, in order of cases: `CaseRecord`s of images and slices
        (see `of_images`), `VolumeEpisodeRecord`s of volumes.

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
        fresh = [outcome_of(one, policy, envs, whole, keep_masks) for one in batch]
        if file:
            file.append(fresh)
        records += [one for one in fresh if isinstance(one, EpisodeRecord)]
        if on_batch:
            on_batch(fresh)
        limit.add(fresh)
    order = {key: number for number, key in enumerate(keys)}
    return sorted(records, key=lambda record: order[record.case])


def digest_of(keys: Sequence[str]) -> str:
    """Return a hash of the cases that a run plays, in their order."""
    return hashlib.blake2b("\n".join(keys).encode(), digest_size=8).hexdigest()


def run_settings(
    envs: CoreVectorEnv,
    policy: Policy,
    keys: Sequence[str],
    seed: int,
    keep_masks: bool = False,
    cases: str = "",
) -> dict:
    """Everything that decides the numbers of a run, for `RecordFile`.

    A policy says with `settings` (a mapping, JSON) what its name does not: how it samples, say.
    What the reader left out of the cases is `left_out`, so that every table of the run can say it.
    `cases` is their spec, where the environment was given what it opens.
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
        "cases": cases or (options.cases if isinstance(options.cases, str) else envs.source.name),
        "split": played_split(envs.source, options.split),
        "keys": digest_of(keys),
        "backbone": envs.backbone.name,
        "checkpoint": None if options.checkpoint is None else str(options.checkpoint),
        "device": str(envs.backbone.device),
        **{
            name: getattr(options, name)
            for name in ("max_steps", "prompt_memory", "mask_input", "multimask")
        },
        **{name: True for name in ("text_prompt", "text_start") if getattr(options, name)},
        **envs.view.settings,
        **(
            {"propagation": asdict(options.propagation)}
            if isinstance(options, VolumeOptions)
            else {}
        ),
        **({"left_out": left_out} if left_out else {}),
        **({"masks": True} if keep_masks else {}),
        **({"policy_settings": policy.settings} if hasattr(policy, "settings") else {}),
        "reward": options.reward if isinstance(options.reward, str) else repr(options.reward),
    }


def file_name(text: str) -> str:
    """Return the end of a text with marks that file systems refuse replaced."""
    return re.sub(r"[^\w.=-]", "-", text)[-120:]
