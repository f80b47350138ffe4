"""FSDP2 of a chat module: what is sharded, and whole tensors from shards and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from medseg_agents.llm.turn_cache import without_adapters
from medseg_gym.errors import MedSegError


def take_from_first(module: nn.Module, device: torch.device | str) -> None:
    """Give every learner the first one's parameters and buffers; FSDP2 does not do so itself.

    Args:
        module: Not sharded yet.
        device: Where collective calls take their tensors.
    """
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            sent = tensor.detach().to(device)  # one at a time: the whole may not fit
            dist.broadcast(sent, 0)
            tensor.copy_(sent)


def shard_module(module: Any, device: torch.device, precision: str) -> None:
    """Shard layers of decoder and vision tower one by one, and what is left with the module.

    Args:
        module: An `HFChatModule`, whose learning methods become forward passes of the root.
        device: Of this learner.
        precision: "bfloat16" gathers and computes in it, with gradients reduced in float32.

    Raises:
        MedSegError: The model does not say which of its layers can be sharded.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import (
        MixedPrecisionPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    half = precision == "bfloat16"
    policy = (
        MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        if half
        else MixedPrecisionPolicy()
    )
    kinds = set(getattr(module.base, "_no_split_modules", None) or ())
    layers = [part for part in module.modules() if type(part).__name__ in kinds]
    if not layers:
        raise MedSegError(
            f"{type(module.base).__name__} does not name its layers (_no_split_modules): it cannot "
            "be sharded"
        )
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    for model in _models(module):
        _shard_embeddings(model, mesh, policy)
    if hasattr(module, "value_head"):  # a small one, in float32 whatever the rest computes in
        fully_shard(module.value_head, mesh=mesh)
    fully_shard(module, mesh=mesh, mp_policy=policy)
    for name in ("forward_train", "read_prompts_apart", "compute_values"):
        register_fsdp_forward_method(module, name)


def _models(module: Any) -> list[Any]:
    reference = getattr(module, "reference", None)
    return [module.base] + ([without_adapters(reference)] if reference is not None else [])


def _shard_embeddings(model: Any, mesh: Any, policy: Any) -> None:
    """Shard input embeddings apart, so that they are not kept whole for a pass; not tied ones.

    Output embeddings stay with the root: how often a pass calls them depends on its tokens, which
    differ between learners.
    """
    from torch.distributed.fsdp import fully_shard

    read, written = model.get_input_embeddings(), model.get_output_embeddings()
    if read is not None and written is not None and read.weight is not written.weight:
        fully_shard(read, mesh=mesh, mp_policy=policy)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return the whole of a sharded tensor; a collective call where it is one."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share_of(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor in the form of another: this learner's shard, where that is sharded.

    Args:
        value: The whole, the same on every learner.
        like: Gives device, dtype and shards.
    """
    value = value.to(like.device, like.dtype)
    if isinstance(like, DTensor):
        # Everybody has the whole value: nothing is sent.
        shard: torch.Tensor = distribute_tensor(
            value, like.device_mesh, like.placements, src_data_rank=None
        )
        return shard
    return value


def clip_shards(
    gradients: dict[Any, torch.Tensor], *, grad_clip: float | None, grad_clip_by: str
) -> torch.Tensor | None:
    """Clip by the norm over all shards, with one collective call for all parameters.

    Args:
        gradients: By parameter; scaled in place.
        grad_clip: Norm that they may have.
        grad_clip_by: "global_norm" alone.

    Returns:
        The norm, (), before.

    Raises:
        MedSegError: Another kind of clipping.
    """
    if not grad_clip:
        return None
    if grad_clip_by != "global_norm":
        raise MedSegError(
            f"sharded learners clip by global_norm alone, not by {grad_clip_by}: "
            "config.training(grad_clip_by='global_norm')"
        )
    present = [gradient for gradient in gradients.values() if gradient is not None]
    norm = whole(torch.nn.utils.get_total_norm(present))
    scale = (grad_clip / (norm + 1e-6)).clamp(max=1.0)
    for gradient in present:
        gradient.mul_(scale)
    return norm


def local_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Count the bytes that this learner holds of tensors."""
    parts = (t.to_local() if isinstance(t, DTensor) else t for t in tensors)
    return sum(part.numel() * part.element_size() for part in parts)
