"""Stores as training sets: chats for supervised fine-tuning, prompts for reinforcement learning."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medseg_gym.cases.reinforcement_schema import reinforcement_schema
from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.envs.views.chat import ChatView
from medseg_gym.envs.views.chat_kinds import (
    IMAGE_CHAT,
    VOLUME_CHAT,
    ChatKind,
    chat_kind,
    kind_of,
    view_arguments,
)
from medseg_gym.envs.views.messages import Message
from medseg_gym.episodes import Episode
from medseg_gym.storage.atomic_write import atomic_path
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.export.chat_format import conversation, png
from medseg_gym.trajectories.replaying.rebuild import AnyCases, StoredCases
from medseg_gym.trajectories.store.arrow import pa, pq
from medseg_gym.trajectories.store.reader import TrajectoryStore
from medseg_gym.trajectories.trajectory import Trajectory

FORMATS = ("chat-parquet", "jsonl", "verl-parquet")
_BATCH = 64  # rows of a row group: images are large

_PART = pa.struct([("type", pa.string()), ("text", pa.string())])
_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.list_(_PART))])
MESSAGES = pa.list_(_MESSAGE)
IMAGES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
_FACTS = [
    ("case", pa.string()),
    ("seed", pa.int64()),
    ("rollout", pa.int32()),
    ("dice", pa.float64()),
]


def features_of(messages: Sequence[str], facts: Sequence[tuple[str, Any]]) -> dict[str, str]:
    """Return what makes `datasets.load_dataset("parquet", ...)` decode the column `images`.

    Args:
        messages: Names of columns of messages.
        facts: Names and types of columns of plain values.
    """
    value = {"dtype": "string", "_type": "Value"}
    conversation = [{"role": value, "content": [{"type": value, "text": value}]}]
    features = {
        **dict.fromkeys(messages, conversation),
        "images": [{"_type": "Image"}],
        **{
            name: {"dtype": str(kind).replace("double", "float64"), "_type": "Value"}
            for name, kind in facts
        },
    }
    return {"huggingface": json.dumps({"info": {"features": features}})}


CHAT_SCHEMA = pa.schema(
    [("messages", MESSAGES), ("images", IMAGES), *_FACTS],
    metadata=features_of(("messages",), _FACTS),
)
_VIEW, _ENV = b"medseg_view", b"medseg_env"  # keys in the metadata of a "chat-parquet" file
VERL_SCHEMA = reinforcement_schema(
    [
        ("target_description", pa.string()),
        ("case", pa.string()),
        ("cases", pa.string()),
        ("split", pa.string()),
        ("max_steps", pa.int32()),
    ]
)


@dataclass
class Exported:
    """Counts of what an export wrote and left out.

    Args:
        rows: Written.
        filtered: Episodes that the annotator did not accept.
        unreadable: Episodes with an action that could not be read.
        repeated: Further episodes on a case that is in a "verl-parquet" file already.
        truthless: Episodes on images whose truth is not known, which "verl-parquet" cannot hold.
    """

    rows: int = 0
    filtered: int = 0
    unreadable: int = 0
    repeated: int = 0
    truthless: int = 0


def export_store(
    store: TrajectoryStore,
    path: str | Path,
    format: str = "chat-parquet",
    chat: ChatOptions | None = None,
    cases: AnyCases = None,
    on_episode: Callable[[], None] | None = None,
) -> Exported:
    """Write the accepted episodes of a store as a training set.

    Args:
        store: To read, of images or of volumes. Episodes without a verdict count as accepted.
        path: Of the file. `dice` is null where the truth is not known.
        format: "chat-parquet" and "jsonl": one row an episode, `messages` and `images` as TRL's
            `SFTTrainer` takes them (in "jsonl" the images are base64 PNG); "verl-parquet": one
            row a case, with the columns of MedSAM-Agent's reinforcement learning, of images alone.
        chat: How episodes are shown: size of the images, texts, overlay, tools. What is trained
            on it should be played with the same options; None takes the defaults of the store's
            `store_kind`.
        cases: See `StoredCases`.
        on_episode: Called after each episode.

    Raises:
        TrajectoryError: Unknown format, cases are not at hand, options of another environment, or
            a store whose episodes are of images and of volumes.
    """
    if format not in FORMATS:
        raise TrajectoryError(f"unknown format {format!r}; use one of {', '.join(FORMATS)}")
    chat = chat_for(store, chat)
    kind = kind_of(chat)
    if kind is VOLUME_CHAT and format == "verl-parquet":
        raise TrajectoryError(
            f"verl-parquet holds one image and its mask a row, and the episodes of {store.path} "
            "are of volumes: use chat-parquet or jsonl"
        )
    view = kind.view(chat)
    exported = Exported()
    make = _verl_rows if format == "verl-parquet" else _chat_rows
    rows = make(_accepted(store, exported, on_episode), StoredCases(cases), view, exported)
    if format == "chat-parquet":
        write_chats(path, rows, chat)
    else:
        with atomic_path(path, TrajectoryError) as temporary:
            if format == "jsonl":
                _write_jsonl(temporary, rows)
            else:
                _write_parquet(temporary, rows, VERL_SCHEMA)
    return exported


def store_kind(store: TrajectoryStore) -> ChatKind:
    """Return the chat environment whose episodes a store holds; that of images for an empty one.

    Raises:
        TrajectoryError: Some are of images and some of volumes.
    """
    of_volumes = {depth is not None for depth in store.to_table(["depth"])["depth"].to_pylist()}
    if len(of_volumes) > 1:
        raise TrajectoryError(
            f"{store.path} holds episodes of images and of volumes, which are shown in different "
            "ways; record them into stores of their own"
        )
    return VOLUME_CHAT if True in of_volumes else IMAGE_CHAT


def chat_for(store: TrajectoryStore, chat: ChatOptions | None = None) -> ChatOptions:
    """Return how the episodes of a store are shown: the options as given, or the defaults.

    Args:
        store: To read.
        chat: How; None takes the defaults of the store's `store_kind`.

    Raises:
        TrajectoryError: Options of another environment, or a store of images and of volumes.
    """
    kind = store_kind(store)
    chat = kind.options() if chat is None else chat
    if kind_of(chat) is not kind:
        raise TrajectoryError(
            f"the episodes of {store.path} are of {kind.noun}s, as {kind.env_id} shows them, and "
            f"the options are those of {kind_of(chat).env_id}; give {kind.options.__name__}"
        )
    return chat


def write_chats(
    path: str | Path, rows: Iterator[dict[str, Any]], chat: ChatOptions | None = None
) -> None:
    """Write conversations as a "chat-parquet" file, which says how they were shown.

    Args:
        path: Of the file; it appears when it is whole.
        rows: `messages`, `images` (`{"bytes": PNG, "path": None}`), `case`, `seed`, `rollout`,
            `dice`.
        chat: How episodes were shown; `read_chat_view` and `read_chat_env` give it back.

    Raises:
        TrajectoryError: The file cannot be written.
    """
    write_with_view(path, rows, CHAT_SCHEMA, chat)


def write_with_view(
    path: str | Path, rows: Iterator[dict[str, Any]], schema: pa.Schema, chat: ChatOptions | None
) -> None:
    """Write a parquet file that says how its rows were shown, see `write_chats`."""
    chat = chat or ChatOptions()
    view, env_id = json.dumps(view_arguments(chat)), kind_of(chat).env_id
    shown = {_VIEW: view.encode(), _ENV: env_id.encode()}
    with atomic_path(path, TrajectoryError) as temporary:
        _write_parquet(temporary, rows, schema.with_metadata({**schema.metadata, **shown}))


def read_chat_view(path: str | Path) -> dict[str, Any] | None:
    """Return the chat view of a "chat-parquet" file; None where it holds none.

    Raises:
        TrajectoryError: Not a parquet file.
    """
    metadata = _metadata(path)
    if _VIEW not in metadata:
        return None
    return {"coordinates": ChatOptions.coordinates, **json.loads(metadata[_VIEW])}


def read_chat_env(path: str | Path) -> str:
    """Return the id of the environment that shows what a "chat-parquet" file holds.

    Raises:
        TrajectoryError: Not a parquet file.
        MedSegError: No environment that chats has that id.
    """
    return chat_kind(_metadata(path).get(_ENV, IMAGE_CHAT.env_id.encode()).decode()).env_id


def _metadata(path: str | Path) -> dict[bytes, bytes]:
    try:
        metadata: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowInvalid) as error:
        raise TrajectoryError(f"{path} is no parquet file: {error}") from None
    return metadata


def _accepted(
    store: TrajectoryStore, exported: Exported, on_episode: Callable[[], None] | None
) -> Iterator[Trajectory]:
    for trajectory in store:
        if trajectory.accepted is False:
            exported.filtered += 1
        else:
            yield trajectory
        if on_episode:
            on_episode()


def _chat_rows(
    trajectories: Iterator[Trajectory], cases: StoredCases, view: ChatView, exported: Exported
) -> Iterator[dict[str, Any]]:
    for one in trajectories:
        if None in one.prompts:
            exported.unreadable += 1
            continue
        chat = conversation(one, cases, view)
        exported.rows += 1
        yield {
            "messages": chat.messages,
            "images": [{"bytes": image, "path": None} for image in chat.images],
            **one.key._asdict(),
            "dice": one.dice if one.facts.truth_known else None,
        }


def _verl_rows(
    trajectories: Iterator[Trajectory], cases: StoredCases, view: ChatView, exported: Exported
) -> Iterator[dict[str, Any]]:
    seen: set[tuple[str | None, str, str]] = set()
    for one in trajectories:
        facts = one.facts
        if not facts.truth_known:
            exported.truthless += 1
            continue
        if (facts.cases, facts.split, facts.key.case) in seen:
            exported.repeated += 1
            continue
        seen.add((facts.cases, facts.split, facts.key.case))
        case = cases.find(one)
        max_steps = int(facts.options["max_steps"])
        opening = Episode(case, torch.from_numpy(case.mask.copy()), max_steps)
        exported.rows += 1
        yield {
            "data_source": facts.source,
            "prompt": [_flat(message) for message in view.messages(opening)],
            "images": [{"bytes": png(image)} for image in view.images(opening)],
            "reward_model": {"style": "rule", "ground_truth": {"bytes": png(case.mask)}},
            "extra_info": {
                "target_description": facts.target,
                "case": facts.key.case,
                "cases": facts.cases,
                "split": facts.split,
                "max_steps": max_steps,
            },
        }


def _flat(message: Message) -> dict[str, str]:
    """Parts as one text, with "<image>" where an image goes."""
    parts = [block.get("text", "<image>") for block in message["content"]]
    return {"role": message["role"], "content": "".join(parts)}


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]], schema: pa.Schema) -> None:
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        batch: list[dict[str, Any]] = []
        for row in rows:
            batch.append(row)
            if len(batch) == _BATCH:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                batch = []
        if batch:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def _write_jsonl(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            row["images"] = [base64.b64encode(image["bytes"]).decode() for image in row["images"]]
            file.write(json.dumps(row) + "\n")
