"""Methods that are compared, each a switch of `medseg train`: methods of papers, and ablations."""

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
        overlay: How the mask is drawn for the model, in a start of its own where it differs.
    """

    title: str
    kind: Literal["grpo", "best-of-n", "dpo", "sft"] = "grpo"
    settings: dict[str, Any] = field(default_factory=dict)
    overlay: Literal["fill", "outline", "none"] = "fill"

    @property
    def options(self) -> str:
        """The settings as the command line takes them."""
        words = [f"medseg train {self.kind}"]
        for name, value in self.settings.items():
            option = name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{option}" if value else f"--no-{option}")
                continue
            given = ",".join(value) if isinstance(value, tuple) else value
            words.append(f"--{option} {given}")
        return " ".join(words)


PAPERS = {
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

ABLATIONS = {
    "group_of_4": Method(title="groups of 4, not 8", settings={"num_generations": 4}),
    "group_of_16": Method(title="groups of 16, not 8", settings={"num_generations": 16}),
    "process": Method(
        title="process and outcome rewards, not Dice gain", settings={"reward": "medsam_agent"}
    ),
    "cost_0.005": Method(
        title="a call costs 0.005, not 0.01", settings={"reward": "dice_gain?step_penalty=0.005"}
    ),
    "cost_0.03": Method(
        title="a call costs 0.03, not 0.01", settings={"reward": "dice_gain?step_penalty=0.03"}
    ),
    "still_tower": Method(title="vision tower left as it is", settings={"train_vision": False}),
    "cooler": Method(title="drawn at temperature 0.7", settings={"temperature": 0.7}),
    "newest_image": Method(title="the newest image shown, not all", settings={"history": "1"}),
    "no_images": Method(title="no earlier turn shown", settings={"history": "none"}),
    "no_overlay": Method(title="the mask not drawn", overlay="none"),
}
"""By name, one thing of the default changed each. All are judged by the same return, in which a
call costs 0.01."""

METHODS = PAPERS | ABLATIONS
"""All by name."""


def choose_methods(text: str) -> list[str]:
    """Return names of methods; the default is always one.

    Args:
        text: "all" of the papers, "ablations", or names with commas between.

    Raises:
        MedSegError: A name that is none.
    """
    sets = {"all": list(PAPERS), "ablations": list(ABLATIONS)}
    names = sets.get(text) or [name for name in text.split(",") if name]
    unknown = sorted(set(names) - set(METHODS))
    if unknown:
        raise MedSegError(
            f"unknown methods {unknown}; there are all, ablations, {', '.join(METHODS)}"
        )
    return [name for name in METHODS if name in names or name == DEFAULT]
