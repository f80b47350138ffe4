"""`coco:PATH`: the JSON of Common Objects in Context: polygons and run lengths by category.

`annotations` reads the JSON, `run_lengths` the masks of it; polygons are drawn by pycocotools, as
COCO's own evaluation does.
"""

from medseg_gym.cases.coco.dataset_format import CocoFormat
from medseg_gym.cases.files.dataset_formats import FormatLoader

__all__ = ["CocoFormat", "load"]

load = FormatLoader(CocoFormat)
