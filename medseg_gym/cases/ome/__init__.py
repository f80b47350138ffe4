"""`ome:PATH`: planes of OME-Zarr (NGFF 0.4 and 0.5) and OME-TIFF, and their label images.

Both become a `Stack` of planes: `ngff` opens the groups of OME-Zarr, after `arrays` has made sure
that nothing in them can run or fill the memory; `tiff` opens OME-TIFF.
"""

from medseg_gym.cases.files.dataset_formats import FormatLoader
from medseg_gym.cases.ome.dataset_format import OmeFormat

__all__ = ["OmeFormat", "load"]

load = FormatLoader(OmeFormat)
