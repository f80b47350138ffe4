"""The formats by name, imported when they are asked for."""

from __future__ import annotations

from importlib import import_module

from medseg_gym.cases.files.dataset_format import DatasetFormat

LAYOUTS = {
    "biomedparse": "medseg_gym.cases.biomedparse:BiomedParseFormat",
    "parquet": "medseg_gym.cases.parquet:ParquetFormat",
    "folder": "medseg_gym.cases.folder:FolderFormat",
    "nifti": "medseg_gym.cases.nifti:NiftiFormat",
    "dicom": "medseg_gym.cases.dicom:DicomFormat",
}


def dataset_format_named(name: str) -> type[DatasetFormat]:
    """Return the layout class of a file spec's name, one of `LAYOUTS`."""
    module, _, attribute = LAYOUTS[name].partition(":")
    return getattr(import_module(module), attribute)
