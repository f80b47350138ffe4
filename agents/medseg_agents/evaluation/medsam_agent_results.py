"""`results.json` as MedSAM-Agent's evaluation writes it: a mask each, then the means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg_agents.evaluation.case_record import EpisodeRecord
from medseg_gym.errors import MedSegError
from medseg_gym.storage.atomic_write import atomic_write


def results_layout(records: Sequence[EpisodeRecord], failed: int = 0) -> dict[str, Any]:
    """Dice and IoU of every final mask, and their means.

    Args:
        records: At least one.
        failed: Cases that are not among them because they failed.

    Returns:
        By case key `dice`, `iou` and `exp` (the target in words); under "mean" `class_dice` and
        `class_iou` (means by target), `mean_class_dice` and `mean_class_iou` (means of these),
        `mean_dice` and `mean_iou` (over all masks), and, where some failed, `failed_cases`.

    Raises:
        MedSegError: A case is called "mean".
    """
    results: dict[str, Any] = {}
    classes: dict[str, list[EpisodeRecord]] = {}
    for record in records:
        if record.case == "mean":
            raise MedSegError('a case may not be called "mean" in results.json; rename it')
        results[record.case] = {
            "dice": record.dice[-1],
            "iou": record.iou[-1],
            "exp": record.target,
        }
        classes.setdefault(record.target, []).append(record)
    dice = {name: _mean([r.dice[-1] for r in members]) for name, members in classes.items()}
    iou = {name: _mean([r.iou[-1] for r in members]) for name, members in classes.items()}
    results["mean"] = {
        "class_dice": dice,
        "class_iou": iou,
        "mean_class_dice": _mean(list(dice.values())),
        "mean_class_iou": _mean(list(iou.values())),
        "mean_dice": _mean([record.dice[-1] for record in records]),
        "mean_iou": _mean([record.iou[-1] for record in records]),
        **({"failed_cases": failed} if failed else {}),
    }
    return results


def write_json(value: Any, path: Path) -> None:
    """Write JSON so that a kill or a full disk leaves the old file or the new one.

    Raises:
        MedSegError: The file cannot be written.
    """
    atomic_write(path, json.dumps(value, indent=1, allow_nan=False))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
