"""New weights for a running vLLM: whole tensors or adapters, by way of files.

Names are those of the checkpoint, without what peft puts around them. The output head is always
sent, tied or not: vLLM may keep a packed copy of it that is renewed by nothing else. After every
update the worker empties its caches of prefixes, image embeddings and images: they were computed
with the weights of before.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from medseg_agents.llm.engine import EngineError
from medseg_agents.llm.turn_cache import without_adapters
from medseg_agents.llm.vllm.engine import Sampler

_VISION = (".visual.", ".vision_tower.")


def checkpoint_weights(model: Any, trained: bool = False) -> dict[str, torch.Tensor]:
    """Return a model's weights by the names of its checkpoint; adapters are folded into copies.

    Args:
        model: Of transformers, or of peft around one.
        trained: Leave out what is not trained (and needs no adapter folded in).
    """
    layers = dict(_adapted_layers(model))
    weights = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        plain = _plain_name(name)
        if plain is None:  # an adapter's own
            continue
        layer = layers.get(name.rpartition(".base_layer.weight")[0])
        if layer is not None:
            changes = [layer.get_delta_weight(adapter) for adapter in layer.active_adapters]
            weights[plain] = parameter.detach() + sum(changes).detach()
        elif parameter.requires_grad or not trained:
            weights[plain] = parameter.detach()
    head = without_adapters(model).get_output_embeddings()
    if head is not None:
        weights.setdefault("lm_head.weight", head.weight.detach())
    return weights


def base_weights(model: Any) -> dict[str, torch.Tensor]:
    """Return the weights under a model's adapters, by the names of its checkpoint."""
    named = model.named_parameters(remove_duplicate=False)
    return {
        plain: parameter.detach()
        for name, parameter in named
        if (plain := _plain_name(name)) is not None
    }


def adapters_travel(model: Any) -> bool:
    """Return whether a model's adapters can be given to vLLM as such.

    vLLM puts adapters on the language model alone. Those of a vision tower that learns are folded
    into the weights; those of one that does not learn change nothing.
    """
    return hasattr(model, "peft_config") and not any(
        _on_vision(name) and ".lora_" in name and parameter.requires_grad
        for name, parameter in model.named_parameters()
    )


def write_adapter(model: Any, folder: Path) -> None:
    """Write the adapters of the language model in peft's layout.

    Args:
        model: Of peft, with one LoRA adapter.
        folder: Made if it is missing.
    """
    from peft import get_peft_model_state_dict

    config = model.peft_config[model.active_adapter]
    weights = {
        name: value.detach().cpu().contiguous()
        for name, value in get_peft_model_state_dict(model).items()
        if not _on_vision(name)
    }
    # base_model.model.PATH.q_proj.lora_A.weight
    targets = sorted({name.split(".")[-3] for name in weights})
    settings = {
        **{"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none"},
        **{"r": config.r, "lora_alpha": config.lora_alpha, "use_rslora": config.use_rslora},
        **{"target_modules": targets, "base_model_name_or_path": None},
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")


def give_weights(sampler: Sampler, model: Any, everything: bool = False) -> None:
    """Give a sampler the weights of a model, as they are now.

    Args:
        sampler: Whose worker has the same checkpoint.
        model: Of transformers, or of peft around one.
        everything: Send what is not trained too. Adapters alone are sent where the worker has the
            weights under them.

    Raises:
        EngineError: The worker refused them, died or was late.
    """
    version = sampler.version + 1
    if adapters_travel(model) and not everything:
        with _folder(0) as folder:
            write_adapter(model, folder)
            reply, _ = sampler.process.ask("load_adapter", _message(folder, version))
    else:
        weights = checkpoint_weights(model, trained=not everything)
        size = sum(tensor.nbytes for tensor in weights.values())
        with _folder(size) as folder:
            write_weights(weights, folder)
            reply, _ = sampler.process.ask("load_weights", _message(folder, version))
    if reply["version"] != version:
        raise EngineError(f"vLLM has weights number {reply['version']}, not number {version}")
    sampler.version = version


def write_weights(weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write weights as `model.safetensors`; tied ones are written twice.

    Args:
        weights: Tensor by name.
        folder: Must be there.
    """
    seen: set[int] = set()
    whole = {}
    for name, tensor in weights.items():
        value = tensor.cpu().contiguous()
        if value.data_ptr() in seen:
            value = value.clone()
        seen.add(value.data_ptr())
        whole[name] = value
    save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})


def _message(folder: Path, version: int) -> dict[str, Any]:
    return {"path": str(folder), "version": version}


@contextmanager
def _folder(size: int) -> Iterator[Path]:
    """A folder that is gone afterwards, in memory where there is room for so many bytes twice."""
    memory = Path("/dev/shm")
    room = memory.is_dir() and shutil.disk_usage(memory).free > 2 * size
    with tempfile.TemporaryDirectory(
        prefix="medseg-weights-", dir=memory if room else None
    ) as name:
        yield Path(name)


def _adapted_layers(model: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(model, "peft_config"):
        for name, module in model.named_modules():
            if hasattr(module, "get_delta_weight") and hasattr(module, "base_layer"):
                yield name, module


def _plain_name(name: str) -> str | None:
    """Return the checkpoint's name of a parameter; None where it is an adapter's own."""
    if ".lora_" in name or ".modules_to_save." in name:
        return None
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def _on_vision(name: str) -> bool:
    return any(part in name for part in _VISION)
