"""The shape of a model, read from its configuration alone: no weights are loaded."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg_agents.grpo.plan.live_bytes import LiveBytes, without_data
from medseg_agents.llm.checkpoint import adapter_base, adapter_rank
from medseg_agents.llm.turn_cache import without_adapters
from medseg_agents.llm.weights.start import add_adapters
from medseg_gym.errors import PolicyError

_TOKENS = 509  # of the pass; a prime, so that no tensor but one of tokens has a multiple of it


@dataclass(frozen=True)
class LayerCost:
    """Bytes that a token costs in one layer, whatever else the layer holds.

    Args:
        kept: Activations that the forward pass keeps for the backward pass, the layer's input left
            out.
        step: The most that exists while the layer is computed again and its gradients are made.
        inference: The most that exists in a forward pass without gradients.
    """

    kept: float
    step: float
    inference: float


@dataclass(frozen=True)
class Side:
    """One of a model's two stacks of layers.

    Args:
        layers: Their number.
        width: Of a hidden state.
        parameters: Of all layers.
        trained: Parameters that are trained, of all layers: all of them, or adapters.
        cost: Of a token (of a patch, in the vision tower) in a layer.
        besides: Bytes a token that the forward pass keeps outside of the layers.
    """

    layers: int
    width: int
    parameters: int
    trained: int
    cost: LayerCost
    besides: float


@dataclass(frozen=True)
class ModelShape:
    """Facts about a model from which memory is computed.

    Args:
        family: `model_type` of the configuration.
        text: Layers of the language model.
        vision: Layers of the vision tower, with all else that belongs to it.
        frozen: Parameters that are not trained.
        trained: Parameters that are trained.
        vocabulary: Rows of the embedding.
        head: Parameters of the output layer.
        head_trained: Whether it is trained.
        largest: Parameters of the largest tensor that is trained.
        key_value: Numbers that a token's keys and values are, of one layer.
        patch: Side of a patch in pixels.
        merge: Patches along one side of an image token.
        frozen_bytes: Of a frozen parameter.
        compute_bytes: Of an activation.
    """

    family: str
    text: Side
    vision: Side
    frozen: int
    trained: int
    vocabulary: int
    head: int
    head_trained: bool
    largest: int
    key_value: int
    patch: int
    merge: int
    frozen_bytes: int
    compute_bytes: int

    @property
    def parameters(self) -> int:
        """All of them, adapters included."""
        return self.frozen + self.trained

    def image_tokens(self, side: int) -> int:
        """Tokens of an image of `side` x `side` pixels."""
        return max(1, round(side / (self.patch * self.merge))) ** 2


def read_shape(
    model: str | Path,
    lora_rank: int | None = None,
    *,
    base: str | Path | None = None,
    train_vision: bool = True,
    dtype: str = "auto",
    precision: str = "float32",
) -> ModelShape:
    """Read the shape of a model of the Qwen3-VL family.

    Args:
        model: Folder with its `config.json`, or that file; or a folder of adapters, whose base is
            read then. Weights need not be there.
        lora_rank: Of adapters; 0 trains all weights, None is the checkpoint's own.
        base: See `adapter_base`.
        train_vision: Whether the vision tower is trained too.
        dtype: Of frozen weights, "auto" as the configuration says.
        precision: Of computing.

    Raises:
        PolicyError: There is no configuration, or it is of another family.
    """
    path = Path(model)
    folder = path.parent if path.is_file() else path
    rank = lora_rank if lora_rank is not None else (adapter_rank(folder) or 0)
    config = _read_config(adapter_base(folder, base) or path)
    stored = getattr(config, "dtype", None) or getattr(config.text_config, "dtype", None)
    frozen = getattr(torch, dtype) if dtype != "auto" else (stored or torch.float32)
    if isinstance(frozen, str):
        frozen = getattr(torch, frozen)
    compute = torch.bfloat16 if precision == "bfloat16" else (frozen if rank else torch.float32)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for an old name
        whole = _build(config, rank, train_vision, frozen)
    text, vision = config.text_config, config.vision_config
    inner = without_adapters(whole).model
    sides = []
    for parts, stack, width in (
        (inner.language_model.layers, inner.language_model.layers, text.hidden_size),
        (inner.visual, inner.visual.blocks, vision.hidden_size),
    ):
        counted = list(parts.parameters())
        with without_data():
            cost = _layer_cost(_with_shapes(stack[0]), width, config, compute)
            besides = 2.0 * width * compute.itemsize  # of the last norm
            if stack is not parts:
                besides = _mergers(inner.visual, width, config, compute)
        sides.append(
            Side(
                len(stack),
                width,
                sum(p.numel() for p in counted),
                sum(p.numel() for p in counted if p.requires_grad),
                cost,
                besides,
            )
        )
    parameters = list(whole.parameters())
    head = whole.get_output_embeddings().weight
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    return ModelShape(
        family=config.model_type,
        text=sides[0],
        vision=sides[1],
        frozen=sum(p.numel() for p in parameters) - trained,
        trained=trained,
        vocabulary=text.vocab_size,
        head=head.numel(),
        head_trained=head.requires_grad,
        largest=max((p.numel() for p in parameters if p.requires_grad), default=0),
        key_value=2 * text.num_key_value_heads * _head_width(text),
        patch=vision.patch_size,
        merge=vision.spatial_merge_size,
        frozen_bytes=frozen.itemsize,
        compute_bytes=compute.itemsize,
    )


def _with_shapes(layer: Any) -> Any:
    """Give a layer that was made on the meta device tensors that count as a CPU's.

    Adapters cannot be added to a model of such tensors, so they are put in afterwards.
    """
    for module in layer.modules():
        for name, old in list(module._parameters.items()):
            if old is not None:
                new = torch.empty(old.shape, dtype=old.dtype)
                module._parameters[name] = torch.nn.Parameter(new, requires_grad=old.requires_grad)
    return layer


def _read_config(path: str | Path) -> Any:
    from transformers import AutoConfig

    if not Path(path).exists():
        raise PolicyError(f"{path}: there is no such folder; one with a config.json is enough")
    try:
        config: Any = AutoConfig.from_pretrained(str(path), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise PolicyError(
            f"{path}: no configuration of a model that transformers can read ({error}); a folder "
            "with its config.json is enough"
        ) from None
    if config.model_type != "qwen3_vl":
        raise PolicyError(
            f"{path} is a model of type {config.model_type!r}; memory can be computed for "
            "'qwen3_vl' alone"
        )
    return config


def _build(config: Any, rank: int, train_vision: bool, frozen: torch.dtype) -> Any:
    from transformers import AutoModelForImageTextToText

    model: Any = AutoModelForImageTextToText.from_config(
        config, dtype=frozen if rank else torch.float32
    )
    if rank:
        model = add_adapters(model, rank)
    else:
        model.requires_grad_(True)
    for name, parameter in model.named_parameters():
        if not train_vision and ".visual." in name:
            parameter.requires_grad_(False)
        if parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()
    return model


def _head_width(text: Any) -> int:
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def _layer_cost(layer: Any, width: int, config: Any, compute: torch.dtype) -> LayerCost:
    """Compute a layer for a row of tokens, forwards, backwards, and without gradients."""
    visual = width == config.vision_config.hidden_size and hasattr(layer, "norm1")
    # Adapters in float32 on a frozen half-precision base, as well as autocast, leave the residual
    # stream in the type of the embeddings.
    stream = compute if compute == _weight_type(layer) else torch.float32
    hidden = torch.zeros(*(() if visual else (1,)), _TOKENS, width, dtype=stream)
    given = _given(config, visual, stream)

    def forward(states: torch.Tensor) -> torch.Tensor:
        with _autocast(compute):
            out = layer(states, **given)
        result: torch.Tensor = out[0] if isinstance(out, tuple) else out
        return result

    begin = hidden.clone().requires_grad_()
    with LiveBytes(_TOKENS) as live:
        out = forward(begin)
        kept = live.now - out.untyped_storage().nbytes()
        out.backward(torch.ones_like(out))
        step = live.peak
    with torch.no_grad(), LiveBytes(_TOKENS) as live:
        forward(hidden)
        inference = live.peak
    return LayerCost(kept / _TOKENS, step / _TOKENS, inference / _TOKENS)


def _autocast(compute: torch.dtype) -> Any:
    return torch.autocast("cpu", torch.bfloat16, enabled=compute == torch.bfloat16)


def _mergers(visual: Any, width: int, config: Any, compute: torch.dtype) -> float:
    """Bytes a patch that is kept by what makes image tokens of patches, and by the pixels."""
    vision = config.vision_config
    patches = _TOKENS * vision.spatial_merge_size**2
    kept = 0
    for merger in (visual.merger, *visual.deepstack_merger_list):
        begin = torch.zeros(patches, width, dtype=compute).requires_grad_()
        with LiveBytes(_TOKENS) as live, _autocast(compute):
            out = _with_shapes(merger)(begin)
        kept += live.now
        del out
    pixels = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return float(kept / patches + pixels * 4)


def _weight_type(layer: Any) -> torch.dtype:
    types = {parameter.dtype for parameter in layer.parameters()}
    return torch.bfloat16 if torch.bfloat16 in types else torch.float32


def _given(config: Any, visual: bool, stream: torch.dtype) -> dict[str, Any]:
    if visual:
        half = config.vision_config.hidden_size // config.vision_config.num_heads
        angles = torch.zeros(_TOKENS, half, dtype=torch.float32)
        return {
            "cu_seqlens": np.array(
                [0, _TOKENS]
            ),  # read as numbers, which a tensor here has none of
            "position_embeddings": (angles, angles),
        }
    angles = torch.zeros(1, _TOKENS, _head_width(config.text_config), dtype=stream)
    return {"position_embeddings": (angles, angles), "attention_mask": None}
