"""Methods that are compared: each a switch of `medseg train`, set as its paper says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from medseg_gym.errors import MedSegError

DEFAULT = "default"
START = "start"


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to learn.

    Args:
        title: In tables.
        kind: Command of `medseg train` that it belongs to.
        settings: Fields of the command's options in which it differs from the default.
    """

    title: str
    kind: Literal["grpo", "best-of-n", "dpo", "sft"] = "grpo"
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> str:
        """The settings as the command line takes them."""
        words = [f"medseg train {self.kind}"]
        for name, value in self.settings.items():
            option = f"--{name.replace('_', '-')}"
            if isinstance(value, tuple):
                value = ",".join(value)
            words.append(option if value is True else f"{option} {value}")
        return " ".join(words)


METHODS = {
    DEFAULT: Method(title="GRPO, the defaults"),
    "reward_to_go": Method(title="reward-to-go", settings={"advantage": "reward_to_go"}),
    "dr_grpo": Method(title="Dr. GRPO", settings={"loss_type": "dr_grpo", "scale_rewards": "none"}),
    "cispo": Method(title="CISPO", settings={"loss_type": "cispo", "epsilon_high": 5.0}),
    "gspo": Method(
        title="GSPO",
        settings={
            "loss_type": "grpo",
            "importance_sampling_level": "sequence",
            "epsilon": 3e-4,
            "epsilon_high": 4e-4,
        },
    ),
    "rloo": Method(title="RLOO", settings={"advantage": "leave_one_out", "scale_rewards": "none"}),
    "reinforce_pp": Method(
        title="REINFORCE++", settings={"advantage": "batch", "num_generations": 1}
    ),
    "dynamic_sampling": Method(title="dynamic sampling", settings={"dynamic_sampling": True}),
    "curriculum": Method(title="curriculum by learnability", settings={"curriculum": "success"}),
    "branch": Method(title="branching groups", settings={"branch": "turn"}),
    "best_of_n": Method(title="best-of-n", kind="best-of-n"),
    "dpo": Method(title="DPO", kind="dpo"),
    "sft": Method(title="fine-tuning continued", kind="sft"),
    "grpo_loss": Method(title="loss of each episode", settings={"loss_type": "grpo"}),
    "bnpo": Method(title="loss of each micro-batch", settings={"loss_type": "bnpo"}),
    "dual_clip": Method(title="dual clip", settings={"delta": 3.0}),
    "batch_spread": Method(title="spread of the batch", settings={"scale_rewards": "batch"}),
    "no_spread": Method(title="no spread", settings={"scale_rewards": "none"}),
    "gdpo": Method(
        title="GDPO",
        settings={
            "reward_weights": ("dice_gain=1", "cost=-1"),
            "multi_objective_aggregation": "normalize_then_sum",
        },
    ),
    "kl": Method(title="GRPO with a KL term", settings={"loss_type": "grpo", "beta": 0.04}),
}
"""By name, those that are used most first: what does not fit into an evening comes last."""


def choose_methods(text: str) -> list[str]:
    """Return names of methods from "all" or a list with commas; the default is always one.

    Raises:
        MedSegError: A name that is none.
    """
    names = list(METHODS) if text == "all" else [name for name in text.split(",") if name]
    unknown = sorted(set(names) - set(METHODS))
    if unknown:
        raise MedSegError(f"unknown methods {unknown}; there are {', '.join(METHODS)}")
    return [name for name in METHODS if name in names or name == DEFAULT]
