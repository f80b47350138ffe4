"""Caches of transformers that a layer may pass more than once, as gradient checkpointing does."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

Layers = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of each layer, each prompts x heads x tokens x width."""


class _Recorded(DynamicLayer):
    """Keeps keys and values of the first pass; a pass that is repeated changes nothing."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the given keys and values."""
        if not self.is_initialized:
            self.keys, self.values, self.is_initialized = key_states, value_states, True
        return key_states, value_states


class _Prefix(DynamicLayer):
    """Puts a prompt's keys and values before those of each row, and keeps nothing of the rows.

    Args:
        keys: Prompts x heads x tokens x width.
        values: The same.
        of: (B,) int64, the prompt of each row.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, of: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values, self.of, self.is_initialized = keys, values, of, True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of prompt and row, B x heads x (K + L) x width."""
        assert self.keys is not None and self.values is not None  # since it was made
        return (
            torch.cat([self.keys[self.of], key_states], dim=-2),
            torch.cat([self.values[self.of], value_states], dim=-2),
        )


def recording_cache() -> Cache:
    """Return a cache whose layers keep what a model computes for prompts."""
    return Cache(layer_class_to_replicate=_Recorded)


def recorded(cache: Cache) -> Layers:
    """Return keys and values of each layer of a recording cache."""
    layers: list[Any] = cache.layers
    return [(layer.keys, layer.values) for layer in layers]


def prefix_cache(layers: Layers, of: torch.Tensor) -> Cache:
    """Return a cache that begins every row with the keys and values of its prompt.

    Args:
        layers: Of the prompts.
        of: (B,) int64, the prompt of each row.
    """
    return Cache(layers=[_Prefix(keys, values, of) for keys, values in layers])
