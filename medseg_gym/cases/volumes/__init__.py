"""Volumes and how slices of them are shown, shared by the `nifti:` and `dicom:` sources.

A `Volume` is a file on disk whose slices come in the radiological view; labels that lie on another
grid than their image are refused or carried over; the windows turn scanner intensities into
images.
"""

from medseg_gym.cases.volumes.geometry import VolumeGeometry, longest_axis
from medseg_gym.cases.volumes.grids import WAY_OUT, Grid, name_grids
from medseg_gym.cases.volumes.orientation import AXES, View, view_of
from medseg_gym.cases.volumes.requirements import require
from medseg_gym.cases.volumes.resampling import RESAMPLING, ResampledLabels, fit_labels, nearest
from medseg_gym.cases.volumes.volume import SUFFIXES, Volume, volume_suffix
from medseg_gym.cases.volumes.windows import CT_WINDOWS, Window, by_value, parse_window, show

__all__ = [
    "AXES",
    "CT_WINDOWS",
    "RESAMPLING",
    "SUFFIXES",
    "WAY_OUT",
    "Grid",
    "ResampledLabels",
    "View",
    "Volume",
    "VolumeGeometry",
    "Window",
    "by_value",
    "fit_labels",
    "longest_axis",
    "name_grids",
    "nearest",
    "parse_window",
    "require",
    "show",
    "view_of",
    "volume_suffix",
]
