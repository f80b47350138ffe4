"""Folders of images and masks that belong together by name: binary, index, instance or colour."""

from medseg_gym.cases.files.dataset_formats import FormatLoader
from medseg_gym.cases.folder.dataset_format import FolderFormat

__all__ = ["FolderFormat", "load"]

load = FormatLoader(FolderFormat)
