"""`pocket`: the small segmenter that comes with the package.

A `segment_anything` Sam of 4 million parameters with small parts of its own, for boxes and clicks;
trained by `scripts.pocket`; described, measured and limited in weights/README.md.
"""

from medseg_gym.backbones.families.pocket.backbone import WEIGHTS, PocketBackbone, build
from medseg_gym.backbones.families.pocket.decoder import build_model

__all__ = ["WEIGHTS", "PocketBackbone", "build", "build_model"]
