"""Exported trajectories as rows to fine-tune on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg_agents.sft.config import SftError


def load_conversations(paths: Sequence[str], cache: Path) -> tuple[Any, dict[str, Any]]:
    """Load rows of exported parquet files as a `datasets.Dataset` with `messages` and `images`.

    Also returns how they were shown: arguments of `MedSegChat-v0`, empty where no file says so.

    Args:
        paths: Files, or folders whose parquet files are all taken.
        cache: Folder for the memory-mapped copy that `datasets` makes.

    Raises:
        SftError: A path that is not there, holds no parquet file or no conversations, or files
            that were shown differently.
    """
    import datasets

    from medseg_gym.trajectories.export.export import read_chat_view

    files: list[str] = []
    for path in map(Path, paths):
        if (path / "format.json").is_file():
            raise SftError(
                f"{path} is a trajectory store; export it first: 'medseg trajectories export "
                f"{path} FILE.parquet'"
            )
        matches = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not matches or not all(file.is_file() for file in matches):
            raise SftError(
                f"{path}: no exported trajectories (*.parquet) there; make them with 'medseg "
                "trajectories export STORE FILE --format chat-parquet'"
            )
        files += map(str, matches)
    datasets.disable_progress_bars()
    try:
        rows = datasets.Dataset.from_parquet(
            files, cache_dir=str(cache), columns=["messages", "images"]
        )
    except (datasets.exceptions.DatasetGenerationError, ValueError, KeyError) as error:
        raise SftError(
            f"{', '.join(files)}: not conversations as 'medseg trajectories export --format "
            f"chat-parquet' writes them ({error})"
        ) from None
    if not len(rows):
        raise SftError(f"{', '.join(files)}: no conversation in there")
    views = {file: read_chat_view(file) or {} for file in files}
    for file, view in views.items():
        if view != views[files[0]]:
            raise SftError(
                f"{file} was exported with other options than {files[0]} ({view} and "
                f"{views[files[0]]}); export them alike, for a model is played as it was trained"
            )
    return rows, views[files[0]]


def leave_out_spelled(rows: Any, processor: Any) -> tuple[Any, int]:
    """Leave out conversations whose words spell a special token of the tokenizer.

    The trainer would read them as that token: a turn's end, or an image that is not there.

    Args:
        rows: Of `load_conversations`.
        processor: Of the model.

    Returns:
        The other rows, and how many were left out.
    """
    from medseg_agents.llm.prompt_tokens import spelled_tokens

    spelled = spelled_tokens(processor)

    def is_plain(messages: Any) -> bool:
        parts = (part for message in messages for part in message["content"])
        return not any(spelled.search(part.get("text") or "") for part in parts)

    kept = rows.filter(is_plain, input_columns=["messages"])
    return kept, len(rows) - len(kept)
