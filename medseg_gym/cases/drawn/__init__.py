"""Objects that people drew on images: polygons, boxes, ellipses and masks, with a word for each.

`DrawnFormat` is the base of the formats that keep them (`coco:`, `yolo:`, `labelme:`, `cvat:`).
Coordinates count from the upper left corner of the upper left pixel, so that the centre of the
first pixel is (0.5, 0.5). A pixel belongs to a polygon if its centre lies inside by the even-odd
rule (`filling`); `outlines` gives polygons of a mask that fill to that very mask.
"""

from medseg_gym.cases.drawn.dataset_format import DrawnFormat, DrawnOptions
from medseg_gym.cases.drawn.objects import DrawnImage, DrawnObject
from medseg_gym.cases.drawn.outlines import outlines, single_outlines
from medseg_gym.cases.drawn.shapes import number, ring

__all__ = [
    "DrawnFormat",
    "DrawnImage",
    "DrawnObject",
    "DrawnOptions",
    "number",
    "outlines",
    "ring",
    "single_outlines",
]
