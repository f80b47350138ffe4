"""The formats by name, imported when they are asked for."""

from __future__ import annotations

from importlib import import_module

from medseg_gym.cases.files.dataset_format import Layout

LAYOUTS = {
    "biomedparse": "medseg_gym.cases.biomedparse:BiomedParseLayout",
    "parquet": "medseg_gym.cases.parquet:ParquetLayout",
    "folder": "medseg_gym.cases.folder:FolderLayout",
    "nifti": "medseg_gym.cases.nifti:NiftiLayout",
    "dicom": "medseg_gym.cases.dicom:DicomLayout",
}


def layout_named(name: str) -> type[Layout]:
    """Return the layout class of a file spec's name, one of `LAYOUTS`."""
    module, _, attribute = LAYOUTS[name].partition(":")
    return getattr(import_module(module), attribute)
