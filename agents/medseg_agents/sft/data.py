"""Exported trajectories as rows to fine-tune on."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg_agents.llm.checkpoint import SavedView
from medseg_agents.sft.config import SftError
from medseg_gym.errors import MedSegError


def load_conversations(paths: Sequence[str], cache: Path) -> tuple[Any, SavedView]:
    """Load rows of exported parquet files as a `datasets.Dataset` with `messages` and `images`.

    Also returns how they were shown: the environment's id, and arguments of its view, empty where
    no file says so.

    Args:
        paths: Files, or folders whose parquet files are all taken.
        cache: Folder for the memory-mapped copy that `datasets` makes.

    Raises:
        SftError: A path that is not there, holds no parquet file or no conversations, or files
            that were shown differently.
    """
    for path in map(Path, paths):
        if (path / "format.json").is_file():
            raise SftError(
                f"{path} is a trajectory store; export it first: 'medseg trajectories export "
                f"{path} FILE.parquet'"
            )
    rows, shown = load_rows(
        paths,
        cache,
        ("messages", "images"),
        "exported trajectories",
        "medseg trajectories export STORE FILE --format chat-parquet",
        SftError,
    )
    if not len(rows):
        raise SftError(f"{', '.join(paths)}: no conversation in there")
    return rows, shown


def load_rows(
    paths: Sequence[str],
    cache: Path,
    columns: Sequence[str],
    name: str,
    command: str,
    error: type[MedSegError],
) -> tuple[Any, SavedView]:
    """Load rows that a command wrote as a `datasets.Dataset`, and how they were shown.

    Args:
        paths: Files, or folders whose parquet files are all taken.
        cache: Folder for the memory-mapped copy that `datasets` makes.
        columns: Names of those that are kept.
        name: Of the rows, in errors.
        command: Writes such rows; shown in errors.
        error: Raised for a path that is not there, holds no such rows, or files that were shown
            differently.
    """
    import datasets

    from medseg_gym.trajectories.export.export import read_chat_env, read_chat_view

    files: list[str] = []
    for path in map(Path, paths):
        matches = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not matches or not all(file.is_file() for file in matches):
            raise error(f"{path}: no {name} (*.parquet) there; make them with '{command}'")
        files += map(str, matches)
    datasets.disable_progress_bars()
    try:
        rows = datasets.Dataset.from_parquet(files, cache_dir=str(cache), columns=list(columns))
    except (datasets.exceptions.DatasetGenerationError, ValueError, KeyError) as cause:
        raise error(
            f"{', '.join(files)}: not {name} as '{command}' writes them ({cause})"
        ) from None
    first, env_id = read_chat_view(files[0]) or {}, read_chat_env(files[0])
    for file in files[1:]:
        view, other = read_chat_view(file) or {}, read_chat_env(file)
        if other != env_id:
            raise error(
                f"{file} holds turns of {other} and {files[0]} those of {env_id}; a model is "
                "trained for one of them"
            )
        if view != first:
            raise error(
                f"{file} was written with other options than {files[0]} ({view} and {first}); "
                "write them alike, for a model is played as it was trained"
            )
    return rows, SavedView(first, {}, env_id)


def leave_out_spelled(
    rows: Any, processor: Any, columns: Sequence[str], error: type[MedSegError]
) -> Any:
    """Leave out rows whose words spell a special token of the tokenizer, and warn of how many.

    The trainer would read them as that token: a turn's end, or an image that is not there.

    Args:
        rows: Of `load_rows`.
        processor: Of the model.
        columns: Those that hold messages.
        error: Raised where no row is left.

    Returns:
        The other rows.
    """
    from medseg_agents.llm.prompt_tokens import spelled_tokens

    spelled = spelled_tokens(processor)

    def is_plain(*conversations: Any) -> bool:
        messages = (message for messages in conversations for message in messages)
        parts = (part for message in messages for part in message["content"])
        return not any(spelled.search(part.get("text") or "") for part in parts)

    kept = rows.filter(is_plain, input_columns=list(columns))
    left_out = len(rows) - len(kept)
    if left_out:
        warnings.warn(
            f"{left_out} rows spell special tokens of the tokenizer and are left out", stacklevel=2
        )
    if not len(kept):
        raise error("every row spells special tokens of the tokenizer")
    return kept
