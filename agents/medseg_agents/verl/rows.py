"""Cases as the rows that verl's `RLHFDataset` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medseg_gym.envs.views.chat_kinds import IMAGE_CHAT, chat_kind
from medseg_gym.trajectories.export.chat_format import png


def write_rows(
    path: str | Path,
    keys: Sequence[str] | None = None,
    env_id: str = IMAGE_CHAT.env_id,
    **options: Any,
) -> Path:
    """Write a parquet file with a row per case: first images, task, and the tools' arguments.

    Args:
        path: Of the file.
        keys: Cases, in order; None is all of the source.
        env_id: Of the chat environment.
        **options: Those of the environment; use the same for the tools.

    Returns:
        The path.

    Raises:
        CaseError: A case that is not there.
        MedSegError: An option that cannot be used.
    """
    kind = chat_kind(env_id)
    chat = kind.options.from_arguments(options)
    source, view = kind.load(chat.cases, chat.split), kind.view(chat)
    rows = []
    for index, key in enumerate(source.keys if keys is None else keys):
        start = kind.begin(source[source.index_of(key)], chat.max_steps)
        messages = [{"role": m["role"], "content": _text(m)} for m in view.messages(start)]
        rows.append(
            {
                "data_source": "medseg_gym",
                "agent_name": "tool_agent",
                "prompt": messages,
                "images": [{"bytes": png(image)} for image in view.images(start)],
                "reward_model": {"style": "rule", "ground_truth": key},
                "extra_info": {
                    "index": index,
                    "case": key,
                    "need_tools_kwargs": True,
                    "tools_kwargs": {
                        name: {"create_kwargs": {"case": key}}
                        for name in view.texts.names(view.tools)
                    },
                },
            }
        )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def _text(message: dict[str, Any]) -> str:
    """Write a message as verl reads it: text with `<image>` where an image is."""
    return "".join(
        "<image>" if item["type"] == "image" else item["text"] for item in message["content"]
    )
