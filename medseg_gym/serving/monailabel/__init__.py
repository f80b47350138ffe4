"""MONAI Label's REST routes over the service's segmenter, for 3D Slicer and other clients of it.

The backbone appears as interactive models (points and boxes in voxels of the file), every policy as
a model that works by itself; images come by session, from a folder, or with the request, and labels
go back on the image's own grid. The protocol is that of MONAI Label 0.8.
"""

from medseg_gym.serving.monailabel.extension import MonaiLabelExtension
from medseg_gym.serving.monailabel.options import MonaiLabelOptions

__all__ = ["MonaiLabelExtension", "MonaiLabelOptions"]
