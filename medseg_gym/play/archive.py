"""The archive: recorded episodes that can be looked at again."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from medseg_gym.cases import Case
from medseg_gym.cases.image_files.images import png_bytes
from medseg_gym.errors import MedSegError
from medseg_gym.play.damage import DamagedStore, log_damage
from medseg_gym.play.describe import describe_steps, truth_text
from medseg_gym.play.shelf import describe_case
from medseg_gym.serving.errors import ServiceError
from medseg_gym.trajectories import (
    EpisodeKey,
    StoredCases,
    Trajectory,
    TrajectoryStore,
    rebuild_episode,
)

_COLUMNS = [
    "id", "case", "seed", "rollout", "cases", "split", "group", "target", "modality", "synthetic",
    "policy", "sees_truth", "backbone", "options", "accepted", "step", "dice", "reward", "stopped",
    "terminated", "truncated",
]  # fmt: skip

Row = dict[str, Any]


@dataclass(frozen=True)
class Shelfmark:
    """A store that the page may read.

    Args:
        name: In requests.
        title: For people.
        path: Its folder.
    """

    name: str
    title: str
    path: Path


class Archive:
    """Reads stores; what has not changed since is read once."""

    def __init__(self) -> None:
        self._held: dict[Path, tuple[Any, TrajectoryStore | None, list[Row]]] = {}
        self._cases = StoredCases()
        self._lock = Lock()

    def rows(self, mark: Shelfmark) -> list[Row]:
        """The finished episodes of a store: the last step's columns, `steps` and `return`.

        A store that is not there yet is empty.

        Raises:
            DamagedStore: It cannot be read.
        """
        with self._lock:
            return self._open(mark)[1]

    def _open(self, mark: Shelfmark) -> tuple[TrajectoryStore, list[Row]] | tuple[None, list[Row]]:
        path = mark.path
        if not path.is_dir():
            return None, []
        try:
            state = []
            for file in sorted(path.iterdir()):
                with suppress(
                    FileNotFoundError
                ):  # a writer's lock or unfinished file, gone meanwhile
                    state.append((file.name, file.stat().st_size))
        except OSError as error:
            log_damage(path, error)
            raise DamagedStore(mark.title) from error
        held = self._held.get(path)
        if held is None or held[0] != state:
            try:
                store = TrajectoryStore(path)
                held = state, store, _last_steps(store)
            except Exception as error:  # damage can surface as anything in the libraries below
                log_damage(path, error)
                held = state, None, []  # so that it is tried, and logged, once
            self._held[path] = held
        if held[1] is None:
            raise DamagedStore(mark.title)
        return held[1], held[2]

    def show(self, mark: Shelfmark, id: str) -> dict[str, Any]:
        """One episode with its picture and every mask, as JSON.

        Raises:
            ServiceError: 404.
            DamagedStore: It cannot be read.
        """
        with self._lock:
            store, rows = self._open(mark)
            row = next((row for row in rows if row["id"] == id), None)
            if store is None or row is None:
                raise ServiceError("there is no such recording", 404)
            try:
                one = store.episode((row["case"], row["seed"], row["rollout"]))
            except Exception as error:
                log_damage(mark.path, error)
                raise DamagedStore(mark.title) from error
            case, missing = self._case(one)
        return _describe(one, case, missing)

    def _case(self, one: Trajectory) -> tuple[Case | None, str]:
        try:
            return self._cases.find(one), ""
        except MedSegError as error:
            return None, str(error)


def _last_steps(store: TrajectoryStore) -> list[Row]:
    steps: dict[str, list[Row]] = {}
    for row in store.to_table(_COLUMNS).to_pylist():
        steps.setdefault(row["id"], []).append(row)
    found = []
    for rows in steps.values():
        last = rows[-1]
        last["steps"], last["return"] = len(rows), sum(row["reward"] for row in rows)
        found.append(last)
    order = {key: number for number, key in enumerate(store.keys())}

    def position(row: Row) -> int:
        return order[EpisodeKey(row["case"], row["seed"], row["rollout"])]

    return sorted(found, key=position)


def _describe(one: Trajectory, case: Case | None, missing: str) -> dict[str, Any]:
    episode = rebuild_episode(one, case)
    facts, known = one.facts, one.facts.truth_known
    found: dict[str, Any] = {
        "id": one.id,
        "case": describe_case(episode.case),
        "policy": facts.policy,
        "oracle": facts.sees_truth,
        "backbone": facts.backbone,
        "max_steps": episode.max_steps,
        "accepted": one.accepted,
        "missing": missing,
        "image": None if case is None else base64.b64encode(png_bytes(case.image)).decode(),
        "steps": describe_steps(episode, one.rewards, known),
    }
    if known:
        found |= {"start_dice": episode.start_dice, "truth": truth_text(episode.case)}
    return found


def list_rows(marks: Sequence[tuple[Shelfmark, Row]], limit: int) -> list[dict[str, Any]]:
    """Rows for the page, the last recorded first.

    Args:
        marks: Rows and the stores they are from.
        limit: At most so many.
    """
    return [
        {
            "store": mark.name,
            "title": mark.title,
            "id": row["id"],
            "case": row["case"],
            "target": row["target"],
            "synthetic": row["synthetic"],
            "split": row["split"],
            "policy": row["policy"],
            "oracle": row["sees_truth"],
            "steps": row["steps"],
            "accepted": row["accepted"],
            "dice": None if math.isnan(row["dice"]) else row["dice"],
            "try": row["rollout"] + 1,
        }
        for mark, row in marks[:limit]
    ]
