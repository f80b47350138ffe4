"""Values that follow from weights alone, computed once instead of in every call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn

T = TypeVar("T")


def kept(owner: nn.Module, name: str, weights: Sequence[torch.Tensor], make: Callable[[], T]) -> T:
    """Return what `make` makes of frozen weights; in inference it is kept until they change.

    Args:
        owner: Module that keeps it, outside of its state.
        name: Of the value, among those that this module keeps.
        weights: All that the value depends on. One that may be trained is never kept.
        make: Computes the value.
    """
    if not torch.is_inference_mode_enabled() or any(
        one.requires_grad or one.is_inference() for one in weights
    ):
        return make()
    held: dict[str, tuple[list[tuple[int, int]], list[torch.Tensor], T]]
    held = owner.__dict__.setdefault("_kept", {})
    now = [(one.data_ptr(), one._version) for one in weights]
    if name not in held or held[name][0] != now:
        # With the weights themselves, so that nothing new comes to lie where they were.
        held[name] = now, [one.detach() for one in weights], make()
    return held[name][2]
