"""Who knows the truth: simulated experts, and beside them the baselines that do not."""

from medseg_gym.annotators.box import OracleBox, disturb, tight_box
from medseg_gym.annotators.click import OracleClick, deepest_pixel, next_click
from medseg_gym.annotators.named import make_policy, policy_names, register_policy
from medseg_gym.annotators.scripted import (
    CentreBox,
    OracleScript,
    RandomActions,
    ScriptedPolicy,
    StopAtOnce,
)

__all__ = [
    "CentreBox",
    "OracleBox",
    "OracleClick",
    "OracleScript",
    "RandomActions",
    "ScriptedPolicy",
    "StopAtOnce",
    "deepest_pixel",
    "disturb",
    "make_policy",
    "next_click",
    "policy_names",
    "register_policy",
    "tight_box",
]
