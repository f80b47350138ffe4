"""Saving a model as a checkpoint that says what it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medseg_agents.llm.weights.origin import Origin, write_facts
from medseg_gym.errors import PolicyError

ADAPTER = "default"
"""Name that peft gives the adapters that are trained."""


def save_model(
    model: Any,
    processor: Any,
    folder: str | Path,
    origin: Origin,
    facts: Mapping[str, Any] | None = None,
    dtype: str = "float32",
) -> None:
    """Write adapters, or the weights of a whole model, with processor and `medseg_model.json`.

    Adapters are written as they are trained, in float32, and name the absolute path of their base.

    Args:
        model: Of transformers, or with adapters of peft.
        processor: Its processor.
        folder: To write into.
        origin: Where the model comes from.
        facts: What `medseg_model.json` says beside that: the run, its algorithm.
        dtype: Of a whole model's weights: "float32", another torch type's name, or "base" for the
            type that its base is stored in.

    Raises:
        PolicyError: There is no such type.
    """
    known = dict(facts or {})
    if hasattr(model, "peft_config"):
        config = model.peft_config[ADAPTER]
        config.base_model_name_or_path = str(Path(origin.base).absolute())
        model.save_pretrained(folder, selected_adapters=[ADAPTER])
        known = {"rank": config.r, "alpha": config.lora_alpha, "dtype": "float32", **known}
        write_facts(folder, "adapters", origin, known)
    else:
        name = origin.dtype if dtype == "base" else dtype
        save_whole(model, folder, name)
        write_facts(folder, "weights", origin, {"dtype": name, **known})
    processor.save_pretrained(folder)


def save_whole(model: Any, folder: str | Path, dtype: str) -> None:
    """Write the weights of a whole model in a type, and say so in its `config.json`.

    Args:
        model: Of transformers.
        folder: To write into.
        dtype: A torch type's name.

    Raises:
        PolicyError: There is no such type.
    """
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise PolicyError(f"weights cannot be written as {dtype!r}; float32 or bfloat16, say")
    if all(one.dtype == kind for one in model.parameters()):
        model.save_pretrained(folder)
        return
    cast: dict[int, torch.Tensor] = {}  # tied weights stay one tensor, and are written once
    state = {}
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor = cast.setdefault(tensor.data_ptr(), tensor.to(kind))
        state[name] = tensor
    model.save_pretrained(folder, state_dict=state)
    file = Path(folder) / "config.json"
    config = _with_dtype(json.loads(file.read_text(encoding="utf-8")), dtype)
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _with_dtype(config: Any, dtype: str) -> Any:
    if not isinstance(config, dict):
        return config
    return {
        name: dtype if name in ("dtype", "torch_dtype") and value else _with_dtype(value, dtype)
        for name, value in config.items()
    }
