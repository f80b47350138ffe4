"""Gradient checkpointing that leaves keys and values of shared prompts in place.

That of transformers drops every key/value cache, because a second pass through a layer would write
to it twice. The caches here (`prompt_cache`) may be passed again, so layers are checkpointed from
outside and keep theirs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from medseg_gym.errors import MedSegError


def checkpoint_layers(model: Any) -> None:
    """Compute the layers of a model again in the backward pass instead of keeping activations.

    Chen et al. 2016. What is kept of a layer is its input. It holds whenever gradients are
    computed, in training mode or not.

    Args:
        model: Of transformers, with adapters or without; its layers are changed in place.

    Raises:
        MedSegError: The model has no layer that transformers could checkpoint.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise MedSegError(
            f"{type(model).__name__} has no layers for gradient checkpointing: train it without "
            "gradient_checkpointing"
        )
    for layer in layers:
        # `forward`, not the module: hooks of other libraries (FSDP's) stay outside.
        layer.forward = functools.partial(_checkpointed, layer.forward)


def _checkpointed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, **kwargs)
