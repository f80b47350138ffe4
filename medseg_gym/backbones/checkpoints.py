"""Model files, read without ever running code from them."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from medseg_gym.errors import CheckpointError

_MAGIC = (b"PK\x03\x04", b"\x80")  # zip archive, or a bare pickle from before torch 1.6


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a state dict from a safetensors or PyTorch file on the CPU.

    A dict under "model" or "state_dict" is unwrapped.

    Raises:
        CheckpointError: The file is missing, truncated, not a model file, or holds code.
    """
    path = Path(path)
    if not path.is_file():
        cause = "is a directory, not a checkpoint file" if path.is_dir() else "no such file"
        raise CheckpointError(f"{path}: {cause}")
    try:
        state = _read(path)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle fails in any way: IndexError, TypeError, ...
        if isinstance(error, pickle.UnpicklingError) and "unsupported" in str(error).lower():
            raise CheckpointError(
                f"{path}: the file holds more than tensors and could run code; it was not loaded. "
                "Save the state dict alone: torch.save(model.state_dict(), FILE)"
            ) from None
        raise CheckpointError(f"{path}: {_damage(path, error)}") from None
    for wrapper in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{path}: expected a state dict, found {type(state).__name__}")
    for key, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"{path}: entry {key!r} is a {type(value).__name__}, expected tensors only; "
                "this is not a state dict"
            )
    return state


def read_torch_file(path: str | Path, device: Any = "cpu") -> Any:
    """Read what `torch.save` wrote, tensors and plain values only: no code in it is ever run.

    Args:
        path: Of the file.
        device: Where tensors go.

    Raises:
        CheckpointError: The file is missing, truncated, something else, or holds code.
    """
    path = Path(path)
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except Exception as error:  # a damaged pickle fails in any way: IndexError, TypeError, ...
        if isinstance(error, pickle.UnpicklingError) and "unsupported" in str(error).lower():
            raise CheckpointError(
                f"{path}: the file holds more than tensors and plain values and could run code; "
                "it was not loaded"
            ) from None
        raise CheckpointError(f"{path}: {_damage(path, error)}") from None


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    with path.open("rb") as file:
        start = file.read(40)
    if start and not start.startswith(_MAGIC):
        raise CheckpointError(
            f"{path}: not a PyTorch checkpoint, it begins with {start!r}; a text here is often "
            "an error page or a Git LFS pointer that was saved in the weights' place"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an unusual pickle protocol
        return torch.load(path, map_location="cpu", weights_only=True)


def _damage(path: Path, error: Exception) -> str:
    return (
        f"damaged or truncated model file of {path.stat().st_size} bytes "
        f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); fetch it again"
    )


def load_weights(model: nn.Module, state: dict[str, torch.Tensor], path: str | Path) -> None:
    """Fill a model; every key must be there and fit.

    Raises:
        CheckpointError: Missing, unexpected or misshapen entries; the message counts and names
            the first of each.
    """
    own = model.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    misshapen = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    faults = [
        f"{len(keys)} {kind} (first: {keys[0]})"
        for kind, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
        )
        if keys
    ]
    if faults:
        raise CheckpointError(
            f"{path}: the checkpoint does not fit {type(model).__name__}: {'; '.join(faults)} of "
            f"{len(own)} entries; is it for another model or size?"
        )
    model.load_state_dict(state)
