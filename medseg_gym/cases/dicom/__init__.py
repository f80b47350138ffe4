"""`dicom:PATH`: cases from DICOM series with SEG or RTSTRUCT as truth.

Headers are read into facts, series are put together from them, and each slice that shows a segment
or a region is a case. `DicomFormat` lists the options.
"""

from medseg_gym.cases.dicom.dataset_format import DicomFormat
from medseg_gym.cases.files.dataset_formats import FormatLoader

__all__ = ["DicomFormat", "load"]

load = FormatLoader(DicomFormat)
