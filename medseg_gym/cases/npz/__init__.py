"""`npz:PATH`: arrays in the form of the 3D challenges and of MedSAM (`imgs`, `gts`).

Each labelled slice of each class is a case (`NpzFormat` lists the options); `load_volumes` gives
whole volumes instead. Nothing is ever unpickled: `boxes`, which the challenge stores as a
pickle of dicts, are read by a reader that knows dicts, lists, texts and whole numbers alone.
"""

from medseg_gym.cases.files.dataset_formats import FormatLoader
from medseg_gym.cases.npz.boxes import VolumeBox
from medseg_gym.cases.npz.dataset_format import NpzFormat
from medseg_gym.cases.npz.volume import NpzVolume

__all__ = ["NpzFormat", "NpzVolume", "VolumeBox", "load"]

load = FormatLoader(NpzFormat)
