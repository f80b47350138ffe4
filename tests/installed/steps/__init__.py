"""The steps of a user, in order: a module for each thing that he does.

Each step is a function of the workplace that raises where it fails; `step` gives it a title.
"""

from steps import (
    clusters,
    distribution,
    installation,
    own_things,
    small_data,
    traces,
    training,
    words,
)
from steps.step import ADDED

MODULES = (
    *(distribution, installation, own_things, small_data, training),
    *(clusters, words, traces),
)
"""In the order in which their steps run: later ones use what earlier ones wrote."""

STEPS = [one for module in MODULES for one in ADDED if one[1].__module__ == module.__name__]
"""Titles and functions of all steps."""

__all__ = ["MODULES", "STEPS"]
