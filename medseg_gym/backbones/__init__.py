"""Promptable segmentation models behind one batched protocol.

`load(name)` gives a shared `Backbone`; `encode` runs once per distinct image (`EmbeddingCache`),
`decode` once per vector step.
"""

from typing import TYPE_CHECKING, Any

from medseg_gym.backbones.cache import EmbeddingCache, embedding_cache
from medseg_gym.backbones.families.ellipse import EllipseBackbone
from medseg_gym.backbones.families.sam2.backbone import Sam2Backbone
from medseg_gym.backbones.protocol import (
    PROMPT_KINDS,
    Backbone,
    Embedding,
    Prediction,
    PromptRow,
    choose_device,
)
from medseg_gym.backbones.registry import available, load, names, register, split
from medseg_gym.backbones.spec import BackboneSpec
from medseg_gym.errors import BackboneError, CheckpointError

if TYPE_CHECKING:
    from medseg_gym.backbones.families.sam.backbone import SamBackbone

__all__ = [
    "PROMPT_KINDS",
    "Backbone",
    "BackboneError",
    "BackboneSpec",
    "CheckpointError",
    "EllipseBackbone",
    "Embedding",
    "EmbeddingCache",
    "Prediction",
    "PromptRow",
    "Sam2Backbone",
    "SamBackbone",
    "available",
    "choose_device",
    "embedding_cache",
    "load",
    "names",
    "register",
    "split",
]


def __getattr__(name: str) -> Any:
    # Late: segment_anything imports torchvision, and that takes longer than torch itself; workers
    # whose backbone is in another process never need it.
    if name != "SamBackbone":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from medseg_gym.backbones.families.sam.backbone import SamBackbone

    return SamBackbone
