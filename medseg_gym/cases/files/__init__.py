"""The base that every file-backed case source shares.

A `DatasetFormat` lists the cases of a folder as `Record`s and what is wrong with it as `Defect`s,
and decodes one case at a time; `FileData` adds the persistent index, groups, splits and the
skipping of defective cases; `FileCaseSource` is one split of it.
"""

from medseg_gym.cases.files.access.byte_cache import ByteCache
from medseg_gym.cases.files.access.guards import check_pixels, check_voxels, read_json, require_file
from medseg_gym.cases.files.access.walk import walk
from medseg_gym.cases.files.data import FileData
from medseg_gym.cases.files.dataset_format import DatasetFormat
from medseg_gym.cases.files.defects import Damaged, Defect, decoding, error_text
from medseg_gym.cases.files.file_cache import FileCache
from medseg_gym.cases.files.records import Facts, Pixels, Record, VolumePixels
from medseg_gym.cases.files.source import FileCaseSource, index_dataset, open_split
from medseg_gym.cases.files.spec import FileOptions, FileSpec, WrongOption

__all__ = [
    "ByteCache",
    "Damaged",
    "DatasetFormat",
    "Defect",
    "Facts",
    "FileCache",
    "FileCaseSource",
    "FileData",
    "FileOptions",
    "FileSpec",
    "Pixels",
    "Record",
    "VolumePixels",
    "WrongOption",
    "check_pixels",
    "check_voxels",
    "decoding",
    "error_text",
    "index_dataset",
    "open_split",
    "read_json",
    "require_file",
    "walk",
]
