"""The error of this room."""

from medseg_gym.errors import MedSegError


class TrajectoryError(MedSegError):
    """A trajectory store is missing, damaged, foreign, or does not fit what it is used for."""
