"""`nifti:PATH`: cases from image and label volumes (NIfTI, NRRD, MetaImage).

Pairs of volumes are found by their names or by a dataset.json; each labelled slice of each target
is a case. `NiftiFormat` lists the options.
"""

from medseg_gym.cases.files.dataset_formats import FormatLoader
from medseg_gym.cases.nifti.bids_format import BidsFormat
from medseg_gym.cases.nifti.dataset_format import NiftiFormat

__all__ = ["BidsFormat", "NiftiFormat", "load", "load_bids"]

load = FormatLoader(NiftiFormat)
load_bids = FormatLoader(BidsFormat)
