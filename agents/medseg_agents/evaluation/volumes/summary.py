"""From scores of volumes to the rows of a table and of files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from medseg_agents.evaluation.volumes.records import (
    ScoredVolumes,
    UnscoredVolume,
    VolumeRecord,
)
from medseg_gym.display.numbers import with_interval
from medseg_gym.display.terminal import Table
from medseg_gym.statistics import bootstrap_interval

MEASURES = (
    "volume_dice",
    "volume_hd95",
    "volume_nsd_1mm",
    "volume_nsd_2mm",
    "volume_error_ml",
)


def summarise_volumes(
    records: Sequence[VolumeRecord], unscored: Sequence[UnscoredVolume] = (), /, **labels: str
) -> dict[str, Any]:
    """One table row: means over the volumes that have a score, intervals by group.

    Args:
        records: Of one policy and backbone.
        unscored: Volumes without a score; they are counted, and a note says so.
        **labels: Put first, e.g. `policy="random"`.

    Returns:
        Labels, then `volumes`, `unscored`, `groups`; for each of `MEASURES` its mean, its
        `_interval` (None with fewer than five groups) and `_n`, the number of volumes it is defined
        for (the mean is None where there are none); `volume_error_ml` is signed, and
        `volume_error_ml_abs` the mean of its size; `prompts`, `turns` and `seconds` a volume;
        `notes`.
    """
    row: dict[str, Any] = {
        **labels,
        "volumes": len(records),
        "unscored": len(unscored),
        "groups": len({record.group for record in records}),
    }
    for name in MEASURES:
        defined = [record for record in records if getattr(record, name) is not None]
        values = [float(getattr(record, name)) for record in defined]
        row[name] = _mean(values)
        row[f"{name}_interval"] = (
            bootstrap_interval(values, [record.group for record in defined]) if values else None
        )
        row[f"{name}_n"] = len(values)
    row["volume_error_ml_abs"] = _mean(
        [abs(r.volume_error_ml) for r in records if r.volume_error_ml is not None]
    )
    row["prompts"] = _mean([record.prompts for record in records])
    row["turns"] = _mean([record.turns for record in records])
    row["seconds"] = _mean([record.seconds for record in records])
    row["notes"] = [*dict.fromkeys(note for r in records for note in r.notes)]
    row["notes"] += _notes(records, unscored)
    return row


def _notes(records: Sequence[VolumeRecord], unscored: Sequence[UnscoredVolume]) -> list[str]:
    notes = []
    empty = sum(record.unplayed_empty for record in records)
    shown = sum(record.unplayed_target for record in records)
    if empty or shown:
        count = sum(record.slices for record in records)
        notes.append(
            f"{empty + shown} of {count} slices were not played and count as empty "
            f"({empty} without the target, {shown} with it)"
        )
    counts = Counter(note for record in records for note in record.grid_notes)
    notes += [f"{count} of {len(records)} volumes: {note}" for note, count in counts.items()]
    if unscored:
        whole = len(records) + len(unscored)
        notes.append(f"{len(unscored)} of {whole} volumes without a score")
    return notes


def summarise_volumes_by(scored: ScoredVolumes, by: str, /, **labels: str) -> list[dict[str, Any]]:
    """Rows for all volumes and for each value of `by` ("modality", "group" or "target").

    A subset that is the whole is not repeated. Without any volume there is no row.
    """
    everything: list[VolumeRecord | UnscoredVolume] = [*scored.records, *scored.unscored]
    values = list(dict.fromkeys(getattr(one, by) for one in everything))
    rows = []
    if len(values) > 1:
        rows.append(summarise_volumes(scored.records, scored.unscored, **labels, subset="all"))
    for value in values:
        members = [one for one in scored.records if getattr(one, by) == value]
        lost = [one for one in scored.unscored if getattr(one, by) == value]
        rows.append(summarise_volumes(members, lost, **labels, subset=value or "unknown"))
    return rows


def volume_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Rich table of the rows of volumes."""
    table = Table(keys=4, title=f"{title}: whole volumes, in 3D", padding=(0, 1, 0, 0))
    for header in ("backbone", "policy", "plays", "subset"):
        table.add_column(header, no_wrap=True)
    for header in (
        "volumes",
        "groups",
        "3D Dice [95 %]",
        "3D HD95 mm\n(n of N)",
        "3D NSD\n1 mm",
        "3D NSD\n2 mm",
        "volume\nerror mL",
        "size of\nerror mL",
        "prompts",
        "turns",
        "s",
    ):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("note")
    table.caption = (
        "plays slices: they are put together. HD95 (n of N): mean over the n of N volumes where "
        "neither mask is empty, or both are. Volume error: mask less truth; its size: without the "
        "sign. prompts: boxes and clicks on all slices of a volume; turns: all actions. Intervals "
        "of all columns are in the files."
    )
    previous = ("", "", "")
    for row in rows:
        current = row["backbone"], row["policy"], row["plays"]
        if previous != ("", "", "") and current != previous:
            table.add_section()
        name = ("", "", "") if current == previous else current
        previous = current
        dice = row["volume_dice"]
        hd95 = "-" if row["volume_hd95"] is None else f"{row['volume_hd95']:.2f}"
        table.add_row(
            *name,
            row["subset"],
            str(row["volumes"]),
            str(row["groups"]),
            "-" if dice is None else with_interval(dice, row["volume_dice_interval"]),
            f"{hd95} ({row['volume_hd95_n']}/{row['volumes']})",
            *(_number(row[name], 3) for name in ("volume_nsd_1mm", "volume_nsd_2mm")),
            "-" if row["volume_error_ml"] is None else f"{row['volume_error_ml']:+.2f}",
            _number(row["volume_error_ml_abs"], 2),
            _number(row["prompts"], 1),
            _number(row["turns"], 1),
            _number(row["seconds"], 2),
            ", ".join(row["notes"]),
        )
    return table


def volume_lines(scored: ScoredVolumes, **labels: str) -> list[dict[str, Any]]:
    """Return one mapping per volume with a score, for JSON and CSV."""
    return [
        {**labels, **asdict(one), "notes": [*one.notes, *one.grid_notes]} for one in scored.records
    ]


def unscored_lines(unscored: Iterable[UnscoredVolume], where: str = "") -> list[str]:
    """Say which volumes have no score and why, one line a volume; equal reasons share one."""
    by_reason: dict[str, list[str]] = {}
    for one in unscored:
        by_reason.setdefault(one.reason, []).append(one.volume)
    return [
        f"no 3D score{where}: {volumes[0]}"
        + (f" and {len(volumes) - 1} more" if len(volumes) > 1 else "")
        + f": {reason}"
        for reason, volumes in by_reason.items()
    ]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
