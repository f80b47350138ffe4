"""The error of a build that cannot go on."""

from __future__ import annotations

from medseg_gym.errors import MedSegError


class BuildError(MedSegError):
    """A source of the pack is missing or not what it should be."""
