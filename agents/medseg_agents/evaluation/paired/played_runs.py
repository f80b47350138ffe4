"""Contents of the folder of an evaluation or of a comparison, read without touching it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg_agents.evaluation.case_record import EpisodeRecord
from medseg_agents.evaluation.evaluate import read_record
from medseg_agents.evaluation.failed_cases import FailedCase
from medseg_agents.evaluation.volumes.episode_record import VolumeEpisodeRecord
from medseg_agents.runs.folder import RunFolder
from medseg_gym.errors import MedSegError
from medseg_gym.storage.line_files import read_rows

CaseAndSeed = tuple[str, int]


@dataclass
class PlayedRow:
    """One policy on one backbone, as a run holds it.

    Args:
        folder: Of the run.
        policy: Its name.
        backbone: Its name.
        settings: That decided the numbers, of every seed.
        records: Of the cases or whole volumes that were played, by key and seed.
        failed: Of the others.
    """

    folder: Path
    policy: str
    backbone: str
    settings: list[Mapping[str, Any]] = field(default_factory=list)
    records: dict[CaseAndSeed, EpisodeRecord] = field(default_factory=dict)
    failed: dict[CaseAndSeed, FailedCase] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of tables and plots; it says who was shown the truth."""
        oracle = any("oracle" in record.notes for record in self.records.values())
        return f"{self.policy}{' (oracle)' if oracle else ''} on {self.backbone}"

    @property
    def plays_volumes(self) -> bool:
        """Return whether whole volumes were played, and not images or slices."""
        return any(isinstance(one, VolumeEpisodeRecord) for one in self.records.values())


def read_run(folder: Path) -> list[PlayedRow]:
    """Read what `medseg eval` or `medseg compare` wrote.

    Args:
        folder: The `--out` of the command.

    Returns:
        A row per policy and backbone, in the order in which they were played; at least one.

    Raises:
        MedSegError: The folder is no such run, or a file in it is damaged.
    """
    run = RunFolder(folder)
    files = sorted((folder / "records").glob("*.jsonl"), key=lambda file: file.stat().st_mtime)
    if run.records_file.is_file():
        files.append(run.records_file)
    rows: dict[tuple[str, str, str], PlayedRow] = {}
    for file in files:
        _add(rows, folder, file)
    played = [row for row in rows.values() if row.records]
    if not played:
        what = "holds no cases that were played" if folder.is_dir() else "is not there"
        raise MedSegError(
            f"run {folder} {what}: give the --out of `medseg eval` or `medseg compare` (with "
            "records.jsonl or records/ in it)"
        )
    return played


def _add(rows: dict[tuple[str, str, str], PlayedRow], folder: Path, file: Path) -> None:
    lines = read_rows(file)
    if not lines:
        return
    settings = lines[0].get("settings")
    if not isinstance(settings, dict) or not {"policy", "backbone"} <= set(settings):
        raise MedSegError(f"{file}: the first line must hold the settings of a run")
    policy, backbone = str(settings["policy"]), str(settings["backbone"])
    # Two policies may have one name: what tells them apart stands in their settings.
    key = (policy, backbone, repr(settings.get("policy_settings")))
    row = rows.setdefault(key, PlayedRow(folder, policy, backbone))
    row.settings.append(settings)
    seed = int(settings.get("seed", 0))
    for number, line in enumerate(lines[1:], start=2):
        try:
            outcome = read_record(line)
        except (ValueError, TypeError) as error:
            raise MedSegError(f"{file}:{number}: not a record ({error})") from None
        where = (outcome.case, seed)
        if isinstance(outcome, FailedCase):
            row.failed[where] = outcome
        else:  # a later line of the same case holds
            row.failed.pop(where, None)
            row.records[where] = outcome
