"""Runs of one task, as the tables play them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg_agents import policies
from medseg_agents.evaluation.case_record import CaseRecord
from medseg_agents.evaluation.comparison import compare
from medseg_agents.evaluation.options import CompareOptions
from rich.console import Console

from benchmarks.learning.arrays.sizes import Sizes
from benchmarks.learning.tiny_table import named
from medseg_gym.storage.atomic_write import atomic_write


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Runs that a table is of.

    Args:
        task: Of `TASKS`.
        methods: That were trained, "dagger" first.
        seeds: Likewise.
        sizes: Of the runs.
        out: Their folder.
        machine: It was measured on.
    """

    task: str
    methods: Sequence[str]
    seeds: Sequence[int]
    sizes: Sizes
    out: Path
    machine: str

    def run(self, method: str, seed: int) -> Path:
        """Folder of a run."""
        return self.sizes.run(self.out, method, self.task, seed)

    def play(
        self, specs: Mapping[str, str], options: CompareOptions, folder: Path
    ) -> dict[str, list[CaseRecord]]:
        """Play policies, or read what was played, and write what `medseg compare` writes.

        Args:
            specs: Of the policies, by label.
            options: Of the comparison, on one backbone.
            folder: Of its files.

        Returns:
            Records by label.
        """
        labelled = [named(label, policies.make(spec)) for label, spec in specs.items()]
        comparison = compare(labelled, options, folder)
        comparison.write(folder)
        return {label: records for (_, label), records in comparison.records.items()}

    def keep(self, name: str, result: Mapping[str, Any], text: str, console: Console) -> None:
        """Write NAME.json and NAME.md, and print the latter."""
        atomic_write(self.out / f"{name}.json", json.dumps(result, indent=1))
        atomic_write(self.out / f"{name}.md", text)
        console.print(text, markup=False, soft_wrap=True)
