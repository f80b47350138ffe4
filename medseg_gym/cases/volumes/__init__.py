"""Volumes and how slices of them are shown, shared by the `nifti:` and `dicom:` sources.

A `Volume` is a file on disk whose slices come in the radiological view; the windows turn scanner
intensities into pictures.
"""

from medseg_gym.cases.volumes.orientation import AXES, View, view_of
from medseg_gym.cases.volumes.requirements import require
from medseg_gym.cases.volumes.volume import SUFFIXES, Volume, require_same_grid, volume_suffix
from medseg_gym.cases.volumes.windows import CT_WINDOWS, Window, by_value, parse_window, show

__all__ = [
    "AXES",
    "CT_WINDOWS",
    "SUFFIXES",
    "View",
    "Volume",
    "Window",
    "by_value",
    "parse_window",
    "require",
    "require_same_grid",
    "show",
    "view_of",
    "volume_suffix",
]
