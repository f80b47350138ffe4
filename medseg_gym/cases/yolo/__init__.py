"""`yolo:PATH`: data.yaml, images and label files with a polygon a line, as YOLO trains on them.

`data_file` reads the YAML, `lines` the label files, and `kept` what this suite's writer adds.
"""

from medseg_gym.cases.files.dataset_formats import FormatLoader
from medseg_gym.cases.yolo.dataset_format import YoloFormat

__all__ = ["YoloFormat", "load"]

load = FormatLoader(YoloFormat)
