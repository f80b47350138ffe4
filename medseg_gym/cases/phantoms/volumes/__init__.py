"""Phantom volumes, "phantoms-volume": solids that go on from slice to slice.

Synthetic and schematic: `VolumeCase.synthetic` is True. They are for trying things out and for
tests; a score on them says nothing about patients.
"""

from medseg_gym.cases.phantoms.volumes.source import (
    LENGTH,
    TARGETS,
    PhantomVolumes,
    load,
)

__all__ = ["LENGTH", "TARGETS", "PhantomVolumes", "load"]
