"""Summary of a store in numbers."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Group

from medseg_gym.display.terminal import Table
from medseg_gym.trajectories.store.reader import TrajectoryStore


@dataclass
class StoreSummary:
    """Counts and means over the finished episodes.

    Args:
        episodes: Finished.
        unfinished: That broke off.
        accepted: By their annotator.
        filtered: Not accepted.
        unjudged: Without a verdict.
        unscored: On images whose truth is not known; means leave them out.
        dice: Mean at the end, over all scored ones; None without any.
        iou: Likewise.
        accepted_dice: Mean over the accepted ones; None if there are none.
        accepted_iou: Likewise.
        lengths: Episodes by number of steps.
        tools: Steps by tool; "" could not be read.
        invalid: Steps that changed nothing.
        players: "policy on backbone" with what a table must say beside it.
        nbytes: Of all files.
    """

    episodes: int = 0
    unfinished: int = 0
    accepted: int = 0
    filtered: int = 0
    unjudged: int = 0
    unscored: int = 0
    dice: float | None = None
    iou: float | None = None
    accepted_dice: float | None = None
    accepted_iou: float | None = None
    lengths: dict[int, int] = field(default_factory=dict)
    tools: dict[str, int] = field(default_factory=dict)
    invalid: int = 0
    players: list[str] = field(default_factory=list)
    nbytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def render(self, title: str) -> Group:
        """For people; `rich` prints it."""
        table = Table(title=title)
        for header in ("", "all", "accepted", "filtered", "unjudged"):
            table.add_column(header, justify="left" if not header else "right")
        counts = (self.episodes, self.accepted, self.filtered, self.unjudged)
        table.add_row("episodes", *map(str, counts))
        table.add_row("mean Dice", _show(self.dice), _show(self.accepted_dice), "", "")
        table.add_row("mean IoU", _show(self.iou), _show(self.accepted_iou), "", "")
        lengths = ", ".join(f"{n} steps: {count}" for n, count in sorted(self.lengths.items()))
        tools = ", ".join(f"{tool or 'unreadable'}: {n}" for tool, n in sorted(self.tools.items()))
        size = f"{self.nbytes / 1e6:.2f} MB"
        if self.episodes:
            size += f", {self.nbytes / self.episodes:.0f} bytes an episode"
        lines = [*self.players, f"lengths: {lengths}", f"tools: {tools}; invalid: {self.invalid}"]
        if self.unscored:
            lines.append(f"without a known truth, in no mean: {self.unscored}")
        if self.unfinished:
            lines.append(f"unfinished recordings, not counted above: {self.unfinished}")
        return Group(table, *lines, size)


def _show(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def summarise_store(store: TrajectoryStore) -> StoreSummary:
    """Count what is in a store; masks are not read."""
    columns = ["id", "accepted", "dice", "iou", "tool", "valid", "terminated", "truncated"]
    columns += ["policy", "sees_truth", "backbone", "synthetic", "options"]
    rows = store.to_table(columns).to_pylist()
    last = [row for row in rows if row["terminated"] or row["truncated"]]
    scored = [row for row in last if not math.isnan(row["dice"])]
    good = [row for row in scored if row["accepted"]]
    verdicts = Counter(row["accepted"] for row in last)
    steps = Counter(row["id"] for row in rows)
    return StoreSummary(
        episodes=len(store),
        unfinished=sum(1 for _ in store.episodes(unfinished=True)),
        accepted=verdicts[True],
        filtered=verdicts[False],
        unjudged=verdicts[None],
        unscored=len(last) - len(scored),
        dice=_mean([row["dice"] for row in scored]),
        iou=_mean([row["iou"] for row in scored]),
        accepted_dice=_mean([row["dice"] for row in good]),
        accepted_iou=_mean([row["iou"] for row in good]),
        lengths=dict(sorted(Counter(steps.values()).items())),
        tools=dict(Counter(row["tool"] for row in rows)),
        invalid=sum(not row["valid"] for row in rows),
        players=_players(rows),
        nbytes=sum(path.stat().st_size for path in store.path.iterdir() if path.is_file()),
    )


def _players(rows: list[dict[str, Any]]) -> list[str]:
    """Return every policy with its backbones and notes: oracle, synthetic, not trained for."""
    kinds = {"box": "box", "positive_point": "point", "negative_point": "point"}
    words = {"box": "boxes", "point": "clicks"}
    notes_by_player: dict[str, set[str]] = {}
    trained: dict[str, set[str]] = {}
    for row in rows:
        notes = notes_by_player.setdefault(
            f"{row['policy'] or 'unknown policy'} on {row['backbone']}", set()
        )
        if row["sees_truth"]:
            notes.add("oracle")
        if row["synthetic"]:
            notes.add("synthetic")
        if row["options"] not in trained:
            trained[row["options"]] = set(json.loads(row["options"]).get("trained_kinds", kinds))
        kind = kinds.get(row["tool"])
        if kind and row["valid"] and kind not in trained[row["options"]]:
            notes.add(f"not trained for {words[kind]}")
    return [
        f"{name} ({', '.join(sorted(notes))})" if notes else name
        for name, notes in notes_by_player.items()
    ]
