"""The tiny model of a run, for the texts and images that are trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg_agents.llm.checkpoint import SavedView
from medseg_gym.envs.views.chat_kinds import IMAGE_CHAT, chat_kind


def build_start(path: Path, rows: Any, trained: SavedView, seed: int = 0) -> Path:
    """Build a tiny model that knows nothing, with a tokenizer made from the rows' texts.

    Args:
        path: Folder of the checkpoint.
        rows: Of `load_conversations`.
        trained: How they are shown.
        seed: Of the weights.

    Returns:
        The folder.
    """
    from medseg_agents.llm.tiny_model import CALL_WORDS, VOLUME_CALL_WORDS, TinyConfig, build_tiny

    words = {
        item["text"]
        for messages in rows.select(range(min(len(rows), 1000)))["messages"]
        for message in messages
        for item in message["content"]
        if message["role"] != "assistant" and item["text"]
    }
    kind = chat_kind(trained.env_id or IMAGE_CHAT.env_id)
    view = kind.view(kind.options(**trained.view))
    words |= {view.texts.turn, view.texts.refused}
    sizes: list[tuple[int, int]] = []
    for key in kind.image_keys:
        shape = view.observation_space[key].shape
        assert shape is not None  # of a Box
        sizes.append((shape[0], shape[1]))
    places = view.coordinates
    config = TinyConfig(
        image_size=sizes[0][0],
        other_images=tuple(sizes[1:]),
        numbers=places.bins if places.kind == "pixel" else 0,
        seed=seed,
    )
    calls = CALL_WORDS if kind is IMAGE_CHAT else VOLUME_CALL_WORDS
    return build_tiny(path, sorted(words), config, calls)
