"""All scenes by name, in the fixed order that keys, seeds and vocabularies rely on."""

from __future__ import annotations

from medseg_gym.cases.phantoms.abdomen import ABDOMEN
from medseg_gym.cases.phantoms.brain import BRAIN
from medseg_gym.cases.phantoms.chest import CHEST
from medseg_gym.cases.phantoms.endoscopy import ENDOSCOPY
from medseg_gym.cases.phantoms.fundus import FUNDUS
from medseg_gym.cases.phantoms.scene import Scene
from medseg_gym.cases.phantoms.ultrasound import ULTRASOUND

SCENES: dict[str, Scene] = {
    scene.name: scene for scene in (ABDOMEN, BRAIN, CHEST, ULTRASOUND, FUNDUS, ENDOSCOPY)
}
