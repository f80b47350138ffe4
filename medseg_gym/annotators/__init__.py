"""Annotators: simulated experts who see the truth, and baselines that do not.

`OracleBox`, `OracleClick` and `OracleBoxClick` follow one rule. The experts (`BoxToPoint`,
`SequentialClick`, `Hybrid`) also check what a click would do before they make it, as MedSAM-Agent
does for its training trajectories; `Noisy` gives any of them a human hand.
"""

from medseg_gym.annotators.box import OracleBox, disturb, tight_box
from medseg_gym.annotators.box_click import OracleBoxClick
from medseg_gym.annotators.click import ErrorClicks, OracleClick, deepest_pixel, next_click
from medseg_gym.annotators.expert import BoxToPoint, Effort, Expert, Hybrid, SequentialClick
from medseg_gym.annotators.noisy import Noisy
from medseg_gym.annotators.registry import (
    begins_spec,
    check,
    find_volume_policy,
    make,
    names,
    register,
    split,
    volume_names,
)
from medseg_gym.annotators.scripted import (
    CentreBox,
    OracleScript,
    RandomActions,
    ScriptedPolicy,
    StopAtOnce,
)

__all__ = [
    "BoxToPoint",
    "CentreBox",
    "Effort",
    "ErrorClicks",
    "Expert",
    "Hybrid",
    "Noisy",
    "OracleBox",
    "OracleBoxClick",
    "OracleClick",
    "OracleScript",
    "RandomActions",
    "ScriptedPolicy",
    "SequentialClick",
    "StopAtOnce",
    "begins_spec",
    "check",
    "deepest_pixel",
    "disturb",
    "find_volume_policy",
    "make",
    "names",
    "next_click",
    "register",
    "split",
    "tight_box",
    "volume_names",
]
