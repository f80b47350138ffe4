"""The state of an RLlib algorithm on disk: numbers and names, never code.

RLlib's own checkpoints are pickles, and reading a pickle runs whatever its writer put into it. Here
arrays lie in a safetensors file and everything else in a JSON file that says where they belong;
the algorithm itself is built from the run's `config.json`.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from medseg_agents.runs.folder import previous_checkpoint, read_json
from medseg_gym.errors import MedSegError
from medseg_gym.storage.atomic_write import atomic_path, atomic_write

_STRUCTURE, _ARRAYS = "state.json", "state.safetensors"
_FORMAT = "medseg_gym algorithm state"


def save_state(algo: Any, folder: Path) -> None:
    """Write the state of an algorithm.

    Args:
        algo: Of RLlib, or anything with `get_state`.
        folder: To write into; made if it is missing.

    Raises:
        MedSegError: The disk refuses, or the state holds something that is no plain value.
    """
    arrays: dict[str, torch.Tensor] = {}
    structure = {"format": _FORMAT, "version": 1, "state": _pack(algo.get_state(), arrays, "state")}
    with atomic_path(folder / _ARRAYS) as file:
        save_file(arrays, file)
    atomic_write(folder / _STRUCTURE, json.dumps(structure))


def load_state(algo: Any, folder: Path) -> None:
    """Give an algorithm the state that `save_state` wrote. No code in the folder is ever run.

    Args:
        algo: Made from the same configuration.
        folder: As it was given to `save_state`.

    Raises:
        MedSegError: The files are missing, damaged, of another kind (RLlib's own checkpoints, which
            could run code, among them), or of another algorithm.
    """
    state = read_state(folder)
    try:
        algo.set_state(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        hint = previous_checkpoint(folder)
        raise MedSegError(f"{folder}: not the state of this algorithm ({error}){hint}") from error


def read_state(folder: Path) -> dict[str, Any]:
    """Read what `save_state` wrote.

    Args:
        folder: As it was given to it.

    Raises:
        MedSegError: As `load_state`.
    """
    refuse_pickles(folder)
    hint = previous_checkpoint(folder)
    structure = read_json(folder / _STRUCTURE)
    if structure.get("format") != _FORMAT or structure.get("version") != 1:
        raise MedSegError(f"{folder / _STRUCTURE} is no state of an algorithm{hint}")
    try:
        state: dict[str, Any] = _unpack(structure["state"], load_file(folder / _ARRAYS))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise MedSegError(f"{folder / _ARRAYS} is damaged: {error}{hint}") from error
    return state


def refuse_pickles(folder: Path) -> None:
    """Refuse RLlib's own checkpoints.

    Args:
        folder: Of an algorithm's state.

    Raises:
        MedSegError: It is one.
    """
    if not (folder / _STRUCTURE).exists() and any(folder.glob("**/*.pkl")):
        raise MedSegError(
            f"{folder} holds RLlib's own checkpoint, whose pickles could run code: it is not read. "
            "Train anew, or resume it with the version that wrote it"
        )


def _pack(value: Any, arrays: dict[str, torch.Tensor], where: str) -> Any:
    """Plain JSON; what JSON has no form for becomes `{"a kind": ...}`."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else {"float": repr(value)}
    if isinstance(value, (np.ndarray, torch.Tensor)):
        name = str(len(arrays))
        if isinstance(value, np.ndarray) and value.dtype == object:
            raise MedSegError(f"the algorithm's {where} holds objects, which are not kept")
        arrays[name] = (
            torch.tensor(value).contiguous()
            if isinstance(value, np.ndarray)
            else (value.detach().cpu().clone().contiguous())
        )
        return {"array" if isinstance(value, np.ndarray) else "tensor": name}
    if isinstance(value, np.generic):
        return {"scalar": [value.dtype.str, _pack(value.item(), arrays, where)]}
    if isinstance(value, dict):
        items = [
            [_pack(k, arrays, where), _pack(v, arrays, f"{where}/{k}")] for k, v in value.items()
        ]
        return {"dict": items}
    if type(value) in _SEQUENCES:
        name = _SEQUENCES[type(value)]
        return {name: [_pack(v, arrays, f"{where}/{i}") for i, v in enumerate(value)]}
    if isinstance(value, deque):
        return {"deque": [value.maxlen, [_pack(v, arrays, where) for v in value]]}
    raise MedSegError(f"the algorithm's {where} is a {type(value).__name__}, which is not kept")


_SEQUENCES: dict[type, str] = {list: "list", tuple: "tuple", set: "set"}


def _unpack(value: Any, arrays: dict[str, torch.Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    several: dict[str, Callable[[Any], Any]] = {"list": list, "tuple": tuple, "set": set}
    if kind in several:
        return several[kind](_unpack(v, arrays) for v in content)
    if kind == "dict":
        return {_unpack(k, arrays): _unpack(v, arrays) for k, v in content}
    if kind == "deque":
        return deque((_unpack(v, arrays) for v in content[1]), maxlen=content[0])
    if kind == "array":
        return arrays[content].numpy()
    if kind == "tensor":
        return arrays[content]
    if kind == "float":
        return float(content)
    if kind == "scalar":
        return np.dtype(content[0]).type(_unpack(content[1], arrays))
    raise ValueError(f"unknown kind {kind!r}")
