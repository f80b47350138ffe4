"""Cases, the images and targets to segment, and the sources they are read from.

A `Case` is one image with one truth mask, a `VolumeCase` one scan with one. A `CaseSource` is a
lazy collection of cases, opened by `load_cases`. Nothing here needs torch.
"""

from medseg_gym.cases.case import Case, hash_pixels
from medseg_gym.cases.case_source import CaseList, CaseSource, load_cases, names, register
from medseg_gym.cases.source import SPLITS, left_out_note, played_split, split_note
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.cases.windowing import window_to_rgb
from medseg_gym.errors import CaseError

__all__ = [
    "SPLITS",
    "Case",
    "CaseError",
    "CaseList",
    "CaseSource",
    "VolumeCase",
    "hash_pixels",
    "left_out_note",
    "load_cases",
    "names",
    "played_split",
    "register",
    "split_note",
    "window_to_rgb",
]
