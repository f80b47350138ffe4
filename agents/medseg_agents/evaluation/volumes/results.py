"""Results of volumes beside those of their slices: for files, and for the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from medseg_agents.evaluation.summary import write_csv
from medseg_agents.evaluation.volumes.mask_files import INDEX, MaskFolder
from medseg_agents.evaluation.volumes.records import ScoredVolumes
from medseg_agents.evaluation.volumes.summary import (
    summarise_volumes_by,
    unscored_lines,
    volume_lines,
    volume_table,
)

VOLUMES_FILE = "volumes.csv"

SLICES, WHOLE = "slices", "volumes"
"""Episodes of a policy: the slices of volumes one by one, or volumes as a whole."""


@dataclass
class VolumeResults:
    """Rows and scores of the volumes of one or several runs.

    Args:
        rows: See `summarise_volumes`.
        lines: One per run and volume, see `VolumeRecord`.
        unscored: Which volumes have no score, and why.
        masks: What could not be written of masks, by reason; None where none was to be written.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    unscored: list[str] = field(default_factory=list)
    masks: dict[str, int] | None = None

    def add(self, scored: Sequence[ScoredVolumes], by: str, /, **labels: str) -> None:
        """Add what one policy reached on one backbone.

        Args:
            scored: One per seed.
            by: Rows per modality, group or target.
            **labels: `backbone`, `policy`, and what it `plays`: slices or volumes.
        """
        all_seeds = ScoredVolumes(
            [record for one in scored for record in one.records],
            [volume for one in scored for volume in one.unscored],
        )
        self.rows += summarise_volumes_by(all_seeds, by, **labels)
        for number, one in enumerate(scored):
            row_labels = {**labels, "repeat": str(number)} if len(scored) > 1 else labels
            self.lines += volume_lines(one, **row_labels)
        where = f" ({labels['backbone']}, {labels['policy']})"
        self.unscored += unscored_lines(all_seeds.unscored, where)

    def count_masks(self, folder: MaskFolder) -> None:
        """Take over what a folder of masks could not hold."""
        self.masks = self.masks or {}
        for reason, count in folder.not_written.items():
            self.masks[reason] = self.masks.get(reason, 0) + count

    def as_json(self) -> dict[str, Any]:
        """Return what JSON results hold of volumes; nothing where there are none."""
        if not (self.rows or self.unscored):
            return {}
        return {"volume_rows": self.rows, "volumes": self.lines, "unscored": self.unscored}

    def write(self, out: Path, name: str, context: Mapping[str, Any]) -> list[str]:
        """Write the rows as `name` and the volumes as `volumes.csv`.

        Args:
            out: Folder.
            name: Of the file of the rows.
            context: Columns that every row gets.

        Returns:
            Names of the files that were written.
        """
        files = []
        if self.rows:
            write_csv([{**row, **context} for row in self.rows], out / name)
            files.append(name)
        if self.lines:
            curves = ("dice_by_step", "prompts_by_step")  # of as many steps as there were
            lines = [{k: v for k, v in one.items() if k not in curves} for one in self.lines]
            write_csv(lines, out / VOLUMES_FILE)
            files.append(VOLUMES_FILE)
        return files

    def show(self, console: Console, title: str) -> None:
        """Print the table, its notes and what has no score."""
        if self.rows:
            console.print(volume_table(self.rows, title))
        for line in self.unscored:
            console.print(line, soft_wrap=True, markup=False, highlight=False)
        for reason, count in (self.masks or {}).items():
            console.print(f"masks: {count} times {reason} ({INDEX})", soft_wrap=True, markup=False)
