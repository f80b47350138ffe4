"""`cvat:PATH`: the XML of "CVAT for images 1.1": polygons, masks, ellipses and boxes by label.

The XML comes from strangers: it is read by defusedxml, which refuses entities.
"""

from medseg_gym.cases.cvat.dataset_format import CvatFormat
from medseg_gym.cases.files.dataset_formats import FormatLoader

__all__ = ["CvatFormat", "load"]

load = FormatLoader(CvatFormat)
