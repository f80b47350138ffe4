"""Environments in forked processes, as gymnasium's `AsyncVectorEnv` makes them on Linux.

A forked child inherits the state of PyTorch's thread pool but none of its threads: the first
operation that wants several of them waits for ever. With one thread there is nothing to wait for,
and processes side by side want no more than one each.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from medseg_gym.errors import BackboneError

_IMPORTED_IN = os.getpid()


def settle_in_child(backbone: Any, device: str) -> None:
    """Make PyTorch usable if this process was forked after PyTorch had come into it.

    Args:
        backbone: Name or instance, as in `EnvOptions`.
        device: As in `EnvOptions`; counts where the backbone is a name.

    Raises:
        BackboneError: A GPU is asked for, and CUDA was in use before the fork: no child can use it
            then.
    """
    if os.getpid() == _IMPORTED_IN:
        return
    torch.set_num_threads(1)
    kind = device if isinstance(backbone, str) else str(backbone.device)
    wants_gpu = kind.startswith("cuda") or (kind == "auto" and torch.cuda.is_available())
    if wants_gpu and torch.cuda._is_in_bad_fork():
        raise BackboneError(
            "this process was forked from one that uses CUDA already, so it cannot use the GPU. "
            "Leave vectorization_mode out: the batch that gym.make_vec then gives needs no "
            "processes, and decodes once a step. Or give "
            'vector_kwargs={"context": "spawn"}, or device="cpu"'
        )
