"""Cases as the rows that verl's `RLHFDataset` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medseg_gym.cases import load_cases
from medseg_gym.envs.chat_options import ChatOptions
from medseg_gym.envs.views.chat import ChatView
from medseg_gym.episodes import Episode
from medseg_gym.prompts import call_names
from medseg_gym.trajectories.export.chat_format import png


def write_rows(path: str | Path, keys: Sequence[str] | None = None, **options: Any) -> Path:
    """Write a parquet file with a row per case: first image, task, and the arguments of the tools.

    Args:
        path: Of the file.
        keys: Cases, in order; None is all of the source.
        **options: Those of `MedSegChat-v0`; use the same for the tools.

    Returns:
        The path.

    Raises:
        CaseError: A case that is not there.
        MedSegError: An option that cannot be used.
    """
    import torch

    chat = ChatOptions.from_arguments(options)
    source, view = load_cases(chat.cases, chat.split), ChatView(chat)
    rows = []
    for index, key in enumerate(source.keys if keys is None else keys):
        case = source[source.index_of(key)]
        start = Episode(case, torch.zeros(case.mask.shape, dtype=torch.bool), chat.max_steps)
        messages = [{"role": m["role"], "content": _text(m)} for m in view.messages(start)]
        rows.append(
            {
                "data_source": "medseg_gym",
                "agent_name": "tool_agent",
                "prompt": messages,
                "images": [{"bytes": png(view.image(case))}],
                "reward_model": {"style": "rule", "ground_truth": key},
                "extra_info": {
                    "index": index,
                    "case": key,
                    "need_tools_kwargs": True,
                    "tools_kwargs": {
                        name: {"create_kwargs": {"case": key}} for name in call_names(chat.tools)
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
