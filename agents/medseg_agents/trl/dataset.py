"""Cases that are played, as rows of a `datasets.Dataset`. TRL repeats each for its whole group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medseg_gym.cases.source import Source
from medseg_gym.envs.views.messages import Message
from medseg_gym.errors import PolicyError


def environment_rows(
    source: Source[Any], limit: int | None = None, seed: int = 0, system: Sequence[Message] = ()
) -> Any:
    """Make rows for `make_environment`: `prompt` and `case`.

    The prompt holds an empty user turn, which the environment's `reset` fills with images and
    task; no image is stored.

    Args:
        source: Cases or volumes, those that the environment has.
        limit: So many of them, drawn without repetition; None is all, in order.
        seed: Of the draw.
        system: What every conversation begins with (`envs.system_messages`). With tools in the chat
            template, Qwen's explains them by itself.

    Returns:
        A `datasets.Dataset`.

    Raises:
        PolicyError: More cases are wanted than there are.
    """
    opening = [*system, {"role": "user", "content": [{"type": "text", "text": ""}]}]
    return _dataset([{"prompt": opening, "case": key} for key in _keys(source, limit, seed)])


def rollout_rows(source: Source[Any], limit: int | None = None, seed: int = 0) -> Any:
    """Make rows for `ChatRollout`, whose `prompt` is the case's key: the conversation is its own.

    Args:
        source: Cases or volumes, those that the rollout has.
        limit: So many of them, drawn without repetition; None is all, in order.
        seed: Of the draw.

    Returns:
        A `datasets.Dataset`.

    Raises:
        PolicyError: More cases are wanted than there are.
    """
    return _dataset([{"prompt": key} for key in _keys(source, limit, seed)])


def _dataset(rows: list[dict[str, Any]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(rows)


def _keys(source: Source[Any], limit: int | None, seed: int) -> list[str]:
    if limit is None:
        return list(source.keys)
    if not 1 <= limit <= len(source):
        raise PolicyError(f"limit must be 1 to {len(source)}, the cases there are, got {limit}")
    chosen = np.random.default_rng(seed).choice(len(source), limit, replace=False)
    return [source.keys[int(index)] for index in chosen]
