"""Synthetic images of six modalities, drawn on demand with exact truth.

`load_cases("phantoms", split)` takes turns between all scenes; `"phantoms:abdomen"` (or brain,
chest, ultrasound, fundus, endoscopy, or several with commas) selects; the word `hard`
(`"phantoms:hard"`, `"phantoms:abdomen,hard"`) gives the hard variant, and
`"phantoms:abdomen?position=random"` images in which the usual place tells little. The images are
schematic: good for tests, demos, pre-training and speed, of no anatomical or clinical authority.
"""

from medseg_gym.cases.phantoms.scene import HARD_KINDS, Drawing, Scene
from medseg_gym.cases.phantoms.scenes import SCENES
from medseg_gym.cases.phantoms.source import CASES_PER_IMAGE, PhantomSource, load

__all__ = [
    "CASES_PER_IMAGE",
    "HARD_KINDS",
    "SCENES",
    "Drawing",
    "PhantomSource",
    "Scene",
    "load",
]
