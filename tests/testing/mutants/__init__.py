"""TinyVectorEnv with one defect each; a module per module of `medseg_gym.testing.vector_checks`."""

from mutants import (
    autoreset,
    independence,
    interface,
    memory,
    randomness,
    refusals,
    reset_mask,
)
from mutants.registry import MUTANTS

__all__ = [
    "MUTANTS",
    "autoreset",
    "independence",
    "interface",
    "memory",
    "randomness",
    "refusals",
    "reset_mask",
]
