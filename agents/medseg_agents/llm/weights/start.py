"""The model that training begins with: a whole one, or adapters on their base.

Weights that are trained are float32 whatever the checkpoint stores: a bfloat16 number has 8
significant bits, so that an AdamW step of 1e-6 on a weight of 0.02 would be rounded away. Weights
that stay frozen (the base under adapters) keep the type that is asked for.

What is done depends on the checkpoint and the rank that is asked for:

| | rank None | rank 0 | the adapters' rank | another rank |
|---|---|---|---|---|
| whole model | all weights | all weights | - | new adapters |
| adapters | these adapters | merged, all weights | these adapters | merged, new adapters |
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from medseg_agents.llm.checkpoint import (
    adapter_base,
    adapter_rank,
    load_model,
    load_processor,
    read_view,
    save_view,
)
from medseg_agents.llm.weights.origin import Origin, stored_dtype
from medseg_agents.llm.weights.save import save_model
from medseg_agents.runs.folder import read_json
from medseg_gym.errors import PolicyError
from medseg_gym.storage.atomic_write import atomic_folder

Plan = Literal["all weights", "new adapters", "these adapters", "merged", "merged, new adapters"]


def plan_start(held: int | None, wanted: int | None) -> Plan:
    """Decide what is trained.

    Args:
        held: Rank of the adapters that training begins with; None for a whole model.
        wanted: `lora_rank` of the settings.
    """
    if held is None:
        return "new adapters" if wanted else "all weights"
    if wanted is None or wanted == held:
        return "these adapters"
    return "merged, new adapters" if wanted else "merged"


def load_for_training(
    path: str | Path,
    lora_rank: int | None,
    lora_alpha: int | None = None,
    dtype: str = "auto",
    base: str | Path | None = None,
) -> tuple[Any, Origin]:
    """Load a model whose trained weights require gradients and are float32.

    Args:
        path: Folder of a whole model or of adapters.
        lora_rank: See above.
        lora_alpha: Scale of new adapters; None is twice the rank. Adapters that are trained on
            keep theirs.
        dtype: Of weights that stay frozen: "auto" as they are stored, or a torch type's name.
        base: See `checkpoint.adapter_base`.

    Returns:
        The model, on the CPU, and where it comes from. Adapters are peft's "default".

    Raises:
        PolicyError: It cannot be loaded, adapters have another `lora_alpha`, or the plan is
            "merged, new adapters": `start_folder` makes that a whole model first, so that the new
            adapters have a base that is somewhere.
    """
    held = adapter_rank(path)
    plan = plan_start(held, lora_rank)
    whole = adapter_base(path, base) or str(path)
    if plan == "merged, new adapters":
        raise PolicyError(
            f"{path} holds adapters of rank {held}; new ones of rank {lora_rank} need a whole "
            f"model to lie on: merge first (medseg export-model {path} --merged --out FOLDER), or "
            "leave lora_rank out to go on with these"
        )
    if plan == "these adapters":
        scale = read_json(Path(path) / "adapter_config.json", PolicyError).get("lora_alpha")
        if lora_alpha is not None and lora_alpha != scale:
            raise PolicyError(
                f"{path} holds adapters with lora_alpha {scale}, which go on being trained; "
                f"lora_alpha {lora_alpha} needs another lora_rank, or leave it out"
            )
    merged = plan == "merged"
    kept = "adapters" in plan  # the base's weights stay as they are
    model = load_model(path, dtype if kept else "float32", merge=merged, base=base, trainable=True)
    origin = Origin(str(path), whole, str(path) if merged else None, stored_dtype(whole))
    if plan == "new adapters":
        assert lora_rank is not None
        model = add_adapters(model, lora_rank, lora_alpha)
    elif plan != "these adapters":
        model.requires_grad_(True)
    _train_in_float32(model)
    return model, origin


def add_adapters(model: Any, rank: int, alpha: int | None = None) -> Any:
    """Put new LoRA adapters on all linear layers (Hu et al. 2021); the output layer has none.

    Args:
        model: Of transformers.
        rank: Of the adapters.
        alpha: Scale; None is twice the rank.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha or 2 * rank,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def start_folder(
    path: str | Path,
    lora_rank: int | None,
    out: str | Path,
    base: str | Path | None = None,
) -> Path:
    """Return the folder that a run loads its model from.

    It is `path`, except where new adapters of another rank shall lie on adapters: their base is
    then the merged model, which is written to `out` in float32 unless it is there.

    Args:
        path: Folder of a whole model or of adapters.
        lora_rank: See `plan_start`.
        out: Folder for a merged model.
        base: See `checkpoint.adapter_base`.

    Raises:
        PolicyError: The adapters cannot be loaded.
    """
    path, out = Path(path), Path(out)
    if plan_start(adapter_rank(path), lora_rank) != "merged, new adapters":
        return path
    if not out.is_dir():
        whole = adapter_base(path, base) or str(path)
        model = load_model(path, "float32", merge=True, base=base)
        origin = Origin(str(path), whole, str(path), stored_dtype(whole))
        with atomic_folder(out, PolicyError) as unfinished:
            save_model(model, load_processor(path, base), unfinished, origin)
            save_view(unfinished, *read_view(path))
    return out


def _train_in_float32(model: nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()
