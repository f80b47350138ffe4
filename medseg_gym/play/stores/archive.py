"""Recorded episodes that can be viewed again."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from medseg_gym.cases.image_files.images import png_bytes
from medseg_gym.episodes import Episode
from medseg_gym.episodes.volumes import VolumeEpisode
from medseg_gym.errors import MedSegError
from medseg_gym.play.catalog import describe_case
from medseg_gym.play.describe import describe_steps, truth_text
from medseg_gym.play.stores.damage import DamagedStore, log_damage
from medseg_gym.play.volumes.describe import describe_volume_steps, truth_slices
from medseg_gym.serving.errors import ServiceError
from medseg_gym.trajectories import (
    EpisodeKey,
    StoredCases,
    Trajectory,
    TrajectoryStore,
    rebuild_episode,
    rebuild_volume_episode,
)

_COLUMNS = [
    "id", "case", "seed", "rollout", "cases", "split", "group", "target", "modality", "synthetic",
    "policy", "sees_truth", "backbone", "options", "accepted", "step", "dice", "reward", "stopped",
    "terminated", "truncated", "depth",
]  # fmt: skip

Row = dict[str, Any]


@dataclass(frozen=True)
class StoreRef:
    """A store that the page may read.

    Args:
        name: Name in requests.
        title: Title for people.
        path: Folder of the store.
    """

    name: str
    title: str
    path: Path


class Archive:
    """Reader of stores; a store is read again only after it has changed."""

    def __init__(self) -> None:
        self._held: dict[Path, tuple[Any, TrajectoryStore | None, list[Row]]] = {}
        self._cases = StoredCases()
        self._lock = Lock()

    def rows(self, ref: StoreRef) -> list[Row]:
        """Return the finished episodes of a store: the last step's columns, `steps` and `return`.

        A store that does not exist yet is empty.

        Raises:
            DamagedStore: It cannot be read.
        """
        with self._lock:
            return self._open(ref)[1]

    def _open(self, ref: StoreRef) -> tuple[TrajectoryStore, list[Row]] | tuple[None, list[Row]]:
        path = ref.path
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
            raise DamagedStore(ref.title) from error
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
            raise DamagedStore(ref.title)
        return held[1], held[2]

    def show(self, ref: StoreRef, id: str) -> Shown:
        """Rebuild one episode with its case, as far as that is to be had.

        Raises:
            ServiceError: 404.
            DamagedStore: It cannot be read.
        """
        with self._lock:
            store, rows = self._open(ref)
            row = next((row for row in rows if row["id"] == id), None)
            if store is None or row is None:
                raise ServiceError("there is no such recording", 404)
            try:
                one = store.episode((row["case"], row["seed"], row["rollout"]))
            except Exception as error:
                log_damage(ref.path, error)
                raise DamagedStore(ref.title) from error
            volume = one.facts.depth is not None
            case, missing = None, ""
            try:
                case = (self._cases.find_volume if volume else self._cases.find)(one)
            except MedSegError as error:
                missing = str(error)
        rebuild: Any = rebuild_volume_episode if volume else rebuild_episode
        return Shown(one, rebuild(one, case), missing)


@dataclass(frozen=True)
class Shown:
    """A recorded episode to be viewed.

    Args:
        recorded: As stored.
        episode: Rebuilt; of a black image where the case is not to be had.
        missing: Why it is not, or "".
    """

    recorded: Trajectory
    episode: Episode | VolumeEpisode
    missing: str

    def describe(self) -> dict[str, Any]:
        """Describe it as JSON: an image with every mask; of a volume what names its masks."""
        one, episode = self.recorded, self.episode
        known = one.facts.truth_known
        description: dict[str, Any] = {
            "id": one.id,
            "case": describe_case(episode.case),
            "policy": one.facts.policy,
            "oracle": one.facts.sees_truth,
            "backbone": one.facts.backbone,
            "max_steps": episode.max_steps,
            "accepted": one.accepted,
            "missing": self.missing,
        }
        if known:
            description["start_dice"] = episode.start_dice
        if isinstance(episode, VolumeEpisode):
            description["steps"] = describe_volume_steps(episode, one.rewards, known)
            description["truth"] = truth_slices(episode) if known else None
            return description
        description["steps"] = describe_steps(episode, one.rewards, known)
        image = None if self.missing else png_bytes(episode.case.image)
        description["image"] = image and base64.b64encode(image).decode()
        if known:
            description["truth"] = truth_text(episode.case)
        return description


def _last_steps(store: TrajectoryStore) -> list[Row]:
    steps: dict[str, list[Row]] = {}
    for row in store.to_table(_COLUMNS).to_pylist():
        steps.setdefault(row["id"], []).append(row)
    episodes = []
    for rows in steps.values():
        last = rows[-1]
        last["steps"], last["return"] = len(rows), sum(row["reward"] for row in rows)
        episodes.append(last)
    order = {key: number for number, key in enumerate(store.keys())}

    def position(row: Row) -> int:
        return order[EpisodeKey(row["case"], row["seed"], row["rollout"])]

    return sorted(episodes, key=position)


def list_rows(rows: Sequence[tuple[StoreRef, Row]], limit: int) -> list[dict[str, Any]]:
    """Describe rows for the page, the last recorded first.

    Args:
        rows: Rows with their stores.
        limit: Limit of the rows listed.
    """
    return [
        {
            "store": ref.name,
            "title": ref.title,
            "id": row["id"],
            "case": row["case"],
            "target": row["target"],
            "synthetic": row["synthetic"],
            "split": row["split"],
            "depth": row["depth"],
            "policy": row["policy"],
            "oracle": row["sees_truth"],
            "steps": row["steps"],
            "accepted": row["accepted"],
            "dice": None if math.isnan(row["dice"]) else row["dice"],
            "try": row["rollout"] + 1,
        }
        for ref, row in rows[:limit]
    ]
