"""Trajectories as rows of a table, one a step, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from medseg_gym.prompts import AddBox, AddPoint, Clear, Prompt, Stop, Undo
from medseg_gym.prompts.volumes import Look, Propagate, SlicePrompt, VolumePrompt
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.store.arrow import pa
from medseg_gym.trajectories.trajectory import EpisodeFacts, EpisodeKey, RecordedStep, Trajectory

FORMAT = "medseg_gym trajectories"
FORMAT_VERSION = 3
"""Version 2 has two columns more, `depth` and `slice`, version 3 `initial_mask`; older files are
read without them.
"""

_BARE: dict[str, Prompt | VolumePrompt] = {
    "propagate": Propagate(),
    "undo": Undo(),
    "clear": Clear(),
    "stop": Stop(),
}

SCHEMA = pa.schema(
    [
        # of the episode
        pa.field("id", pa.string(), nullable=False),
        pa.field("case", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("rollout", pa.int32(), nullable=False),
        pa.field("cases", pa.string()),
        pa.field("split", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("target", pa.string(), nullable=False),
        pa.field("modality", pa.string(), nullable=False),
        pa.field("synthetic", pa.bool_(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("depth", pa.int32()),
        pa.field("image_hash", pa.string(), nullable=False),
        pa.field("truth", pa.binary(), nullable=False),
        pa.field("initial_mask", pa.binary()),
        pa.field("policy", pa.string(), nullable=False),
        pa.field("sees_truth", pa.bool_()),
        pa.field("backbone", pa.string(), nullable=False),
        pa.field("checkpoint", pa.string()),
        pa.field("checkpoint_hash", pa.string()),
        pa.field("options", pa.string(), nullable=False),
        pa.field("finished", pa.bool_(), nullable=False),
        pa.field("accepted", pa.bool_()),
        # of the step
        pa.field("step", pa.int32(), nullable=False),
        pa.field("tool", pa.string(), nullable=False),
        pa.field("slice", pa.int32()),
        pa.field("x1", pa.float64()),
        pa.field("y1", pa.float64()),
        pa.field("x2", pa.float64()),
        pa.field("y2", pa.float64()),
        pa.field("valid", pa.bool_(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("reward", pa.float64(), nullable=False),
        pa.field("terms", pa.map_(pa.string(), pa.float64()), nullable=False),
        pa.field("dice", pa.float64(), nullable=False),
        pa.field("iou", pa.float64(), nullable=False),
        pa.field("mask", pa.binary(), nullable=False),
        pa.field("stopped", pa.bool_(), nullable=False),
        pa.field("terminated", pa.bool_(), nullable=False),
        pa.field("truncated", pa.bool_(), nullable=False),
    ],
    metadata={"format": FORMAT, "version": str(FORMAT_VERSION)},
)
"""Columns of every file of a store; docs/how-to/trajectories.md says what they mean."""


def check_version(where: object, header: dict[str, Any]) -> None:
    """Refuse a file of another kind or of a newer version.

    Raises:
        TrajectoryError: It names the file.
    """
    if header.get("format") != FORMAT or not str(header.get("version", "")).isdigit():
        raise TrajectoryError(f"{where} is not part of a trajectory store")
    if int(header["version"]) > FORMAT_VERSION:
        raise TrajectoryError(
            f"{where} has format version {header['version']}; this medseg_gym reads up to "
            f"{FORMAT_VERSION}. Install a newer medseg_gym"
        )


def facts_to_row(facts: EpisodeFacts) -> dict[str, Any]:
    """The columns of an episode."""
    row = {**vars(facts), **facts.key._asdict()}
    del row["key"]
    row["options"] = json.dumps(dict(facts.options), sort_keys=True)
    return row


def facts_from_row(row: dict[str, Any]) -> EpisodeFacts:
    """Undo `facts_to_row`; other columns are ignored."""
    names = [name for name in EpisodeFacts.__dataclass_fields__ if name not in ("key", "options")]
    known = {"depth": None, "initial_mask": None, **row}  # absent from older versions
    return EpisodeFacts(
        key=EpisodeKey(row["case"], row["seed"], row["rollout"]),
        options=json.loads(row["options"]),
        **{name: known[name] for name in names},
    )


def step_to_row(step: RecordedStep) -> dict[str, Any]:
    """The columns of a step."""
    row = {**vars(step), "tool": step.tool, "terms": dict(step.terms)}
    prompt = row.pop("prompt")
    row.update(slice=None, x1=None, y1=None, x2=None, y2=None)
    if isinstance(prompt, (SlicePrompt, Look)):
        row["slice"] = prompt.slice
    if isinstance(prompt, SlicePrompt):
        prompt = prompt.prompt
    if isinstance(prompt, AddBox):
        row.update(x1=prompt.x1, y1=prompt.y1, x2=prompt.x2, y2=prompt.y2)
    elif isinstance(prompt, AddPoint):
        row.update(x1=prompt.x, y1=prompt.y)
    return row


def step_from_row(row: dict[str, Any]) -> RecordedStep:
    """Undo `step_to_row`; other columns are ignored."""
    tool = row["tool"]
    prompt: Prompt | VolumePrompt | None
    if tool == "box":
        prompt = AddBox(row["x1"], row["y1"], row["x2"], row["y2"])
    elif tool in ("positive_point", "negative_point"):
        prompt = AddPoint(row["x1"], row["y1"], positive=tool == "positive_point")
    elif tool == "look":
        prompt = Look(row["slice"])
    else:
        prompt = _BARE.get(tool)
    if row.get("slice") is not None and isinstance(prompt, (AddBox, AddPoint)):
        prompt = SlicePrompt(row["slice"], prompt)
    names = [n for n in RecordedStep.__dataclass_fields__ if n not in ("prompt", "terms")]
    return RecordedStep(
        prompt=prompt, terms=dict(row["terms"]), **{name: row[name] for name in names}
    )


def to_table(trajectories: Iterable[Trajectory]) -> Any:
    """A pyarrow table with `SCHEMA`, one row a step, the steps of an episode together."""
    rows = []
    for trajectory in trajectories:
        shared = {
            **facts_to_row(trajectory.facts),
            "id": trajectory.id,
            "finished": trajectory.finished,
            "accepted": trajectory.accepted,
        }
        for number, step in enumerate(trajectory.steps):
            row = {**shared, **step_to_row(step), "step": number}
            row["terms"] = list(row["terms"].items())
            rows.append(row)
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def from_rows(rows: Sequence[dict[str, Any]]) -> Trajectory:
    """The rows of one episode, in order."""
    first = rows[0]
    steps = tuple(step_from_row(row) for row in rows)
    return Trajectory(first["id"], facts_from_row(first), steps, first["accepted"])
