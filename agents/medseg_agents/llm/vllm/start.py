"""Start vLLM for a checkpoint: to play with it, or for a model that learns."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg_agents.llm.checkpoint import adapter_base, load_model, load_processor
from medseg_agents.llm.engine_options import EngineOptions, ModelOptions
from medseg_agents.llm.vllm.engine import Sampler, VLLMEngine
from medseg_agents.llm.vllm.model_facts import model_facts
from medseg_agents.llm.vllm.process import VLLMProcess, find_python
from medseg_gym.envs.views.messages import Message

_CONTEXT = 8192
"""Tokens of a conversation at most; a model's own limit may be more than its memory holds."""
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Limits of adapters' ranks that vLLM knows."""


def start_sampler(
    path: str | Path,
    options: EngineOptions,
    dtype: str = "auto",
    lora_rank: int = 0,
    owned: bool = False,
) -> Sampler:
    """Start vLLM with a model.

    Args:
        path: Folder of a model of transformers, not of adapters.
        options: Of the engine.
        dtype: It computes in it; "auto" is that of the stored weights.
        lora_rank: Of adapters that it will be given; 0 for none.
        owned: The folder is removed when vLLM ends.

    Raises:
        PolicyError: No Python with vLLM, or no checkpoint of a chat model that takes images.
        EngineError: vLLM did not start.
    """
    python = find_python(options.vllm_python)
    processor = load_processor(path)
    facts = model_facts(path, processor)
    chosen = facts.dtype if dtype == "auto" else dtype.removeprefix("torch.")
    arguments: dict[str, Any] = {
        "model": str(Path(path).absolute()),
        "dtype": chosen,
        "max_model_len": _CONTEXT,
    }
    if lora_rank:
        limit = next((rank for rank in _RANKS if rank >= lora_rank), lora_rank)
        arguments |= {"enable_lora": True, "max_lora_rank": limit, "max_loras": 1}
    arguments |= options.vllm_arguments()
    process = VLLMProcess(arguments, python, options.vllm_timeout, Path(path) if owned else None)
    return Sampler(process, processor, facts, str(arguments["dtype"]))


def load_vllm_engine(
    path: str | Path, system: Sequence[Message], options: ModelOptions
) -> VLLMEngine:
    """Start vLLM with a checkpoint to play with; adapters are folded into a copy of their base.

    Args:
        path: Folder of a model, or of adapters of peft.
        system: Messages that every conversation begins with.
        options: See `ModelOptions`.

    Raises:
        PolicyError: See `start_sampler`.
    """
    find_python(options.vllm_python)  # before anything that takes long
    if not adapter_base(path):
        return VLLMEngine(start_sampler(path, options, options.dtype), system, options)
    model, folder = load_model(path, options.dtype, merge=True), model_folder()
    model.save_pretrained(folder)
    load_processor(path).save_pretrained(folder)
    sampler = start_sampler(folder, options, options.dtype, owned=True)
    return VLLMEngine(sampler, system, options)


def model_folder() -> Path:
    """Make a folder for a model that vLLM alone reads; see `owned` of `start_sampler`."""
    return Path(tempfile.mkdtemp(prefix="medseg-model-"))
