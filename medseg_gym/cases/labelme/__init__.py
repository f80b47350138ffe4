"""`labelme:PATH`: a JSON file of LabelMe beside each image: polygons, circles, boxes and masks."""

from medseg_gym.cases.files.dataset_formats import FormatLoader
from medseg_gym.cases.labelme.dataset_format import LabelMeFormat

__all__ = ["LabelMeFormat", "load"]

load = FormatLoader(LabelMeFormat)
