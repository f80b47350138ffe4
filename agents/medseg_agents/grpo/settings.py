"""Settings of reinforcement learning for policies that chat; nothing here imports torch or Ray."""

from __future__ import annotations

import typing
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from medseg_agents.grpo.option_groups import (
    AdvantageSettings,
    CaseSettings,
    EpisodeSettings,
    GenerationSettings,
    MachineSettings,
    ModelSettings,
    ObjectiveSettings,
    OptimiserSettings,
    ProgressSettings,
    ShardSettings,
    UpdateSettings,
)
from medseg_gym.errors import MedSegError, nearest
from medseg_gym.options import describe_fields

if TYPE_CHECKING:
    from medseg_gym.envs.views.chat_kinds import ChatKind


@dataclass(frozen=True, kw_only=True)
class ChatSettings(
    ShardSettings,
    OptimiserSettings,
    ObjectiveSettings,
    CaseSettings,
    AdvantageSettings,
    GenerationSettings,
    ModelSettings,
):
    """Model, groups and objective: what GRPO and turn-level PPO share.

    Raises:
        MedSegError: A value out of range, or values that do not fit each other.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, field in describe_fields(type(self)).items():
            choices = typing.get_args(field.declared)
            if typing.get_origin(field.declared) is Literal and getattr(self, name) not in choices:
                near = nearest(str(getattr(self, name)), choices)
                raise MedSegError(
                    f"{name} must be one of {choices}, got {getattr(self, name)!r}{near}"
                )
        _at_least_one(self, "num_generations", "groups", "minibatches", "micro_batch", "iterations")
        _at_least_one(self, "max_completion_length", "max_num_gen_batches")
        if self.dynamic_sampling and self.num_generations < 2:
            raise MedSegError(
                "dynamic_sampling looks for spread within groups: num_generations >= 2"
            )
        if self.logit_chunk < 0:
            raise MedSegError(f"logit_chunk must be >= 0 (0: all tokens), got {self.logit_chunk}")
        self.check_engine()
        if self.temperature <= 0:
            raise MedSegError(
                f"completions are drawn: temperature must be > 0, got {self.temperature}"
            )
        if self.advantage not in ("gae", "batch") and self.num_generations < 2:
            raise MedSegError(
                f"advantage {self.advantage!r} compares episodes of one case: num_generations must "
                f"be at least 2, got {self.num_generations}"
            )
        if self.branch == "turn" and self.num_generations < 2:
            raise MedSegError(
                "branch 'turn' compares episodes that go on from one state: num_generations must "
                f"be at least 2, got {self.num_generations}"
            )
        if self.groups % self.minibatches:
            raise MedSegError(
                f"groups ({self.groups}) must be a multiple of minibatches ({self.minibatches}): "
                "groups stay whole"
            )
        _check_objective(self)

    @property
    def episodes(self) -> int:
        """Episodes of an iteration."""
        return self.groups * self.num_generations


@dataclass(frozen=True, kw_only=True)
class ChatRun(ProgressSettings, MachineSettings, EpisodeSettings, UpdateSettings, ChatSettings):
    """A run of `medseg train grpo | chat-ppo`: the settings, cases and machines.

    Raises:
        MedSegError: A value out of range, or values that do not fit each other.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least_one(self, "epochs", "checkpoint_every", "keep", "eval_cases", "max_steps")
        _at_least_one(self, "log_samples")

    @property
    def chat(self) -> dict[str, Any]:
        """Value by field of `ChatSettings`; `iterations` are those that the schedule goes by."""
        values = {field.name: getattr(self, field.name) for field in fields(ChatSettings)}
        return {**values, "iterations": self.scheduled(self.iterations)}

    def kind(self) -> ChatKind:
        """Return the chat environment that is played: the checkpoint's own.

        Raises:
            MedSegError: No checkpoint is named, or another environment than its own.
        """
        from medseg_agents.llm.checkpoint import kind_to_play

        if not self.model:
            raise MedSegError("name the checkpoint to start from: --model FOLDER")
        return kind_to_play(self.model, self.env)

    def view(self) -> dict[str, Any]:
        """Return the arguments of the view: the checkpoint's own, unless these settings differ."""
        from medseg_agents.llm.checkpoint import read_view

        self.kind()
        saved = read_view(self.model).view
        own = {name: getattr(self, name) for name in ("image_size", "texts")}
        return {**saved, **{name: value for name, value in own.items() if value is not None}}


@dataclass(frozen=True, kw_only=True)
class GRPORun(ChatRun):
    """GRPO (Shao et al. 2024): advantages within groups of episodes of one case."""


@dataclass(frozen=True, kw_only=True)
class ChatPPORun(ChatRun):
    """PPO (Schulman et al. 2017): one episode a case, advantages of turns from a value head."""

    topic: ClassVar[str] = "Groups and advantages"

    num_generations: int = 1
    """Episodes of one case; one is enough where nothing is compared within a group."""

    groups: int = 128
    """Cases of an iteration."""

    minibatches: int = 4
    """Gradient steps of an epoch; whole groups are dealt among them. A value head that begins with
    zeros needs many."""

    epochs: int = 4
    """Passes over an iteration's episodes."""

    advantage: Literal["group", "leave_one_out", "batch", "reward_to_go", "gae"] = "gae"
    """"gae": turn-level generalised advantages from a value head (Schulman et al. 2016, eq. 16).
    The others are GRPO's."""

    critic_warmup: int = 5
    """First iterations in which the value head alone learns: until it knows something its
    advantages are noise (compare the value pretraining of VC-PPO, Yuan et al. 2025)."""


def _at_least_one(settings: ChatSettings, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < 1:
            raise MedSegError(f"{name} must be at least 1, got {getattr(settings, name)}")


def _check_objective(settings: ChatSettings) -> None:
    """Refuse options of loss and advantages that contradict each other."""
    cispo, high, delta = settings.loss_type == "cispo", settings.epsilon_high, settings.delta
    if cispo and high < 1:
        raise MedSegError(
            f"under loss_type 'cispo' epsilon_high is the greatest weight of a token: {high} is "
            "below 1; give epsilon_high=5"
        )
    if delta is not None and (cispo or delta <= 1 + high):
        raise MedSegError(
            "delta bounds ratios that epsilon_high leaves alone, so it must be above 1 + "
            f"epsilon_high ({1 + high:g}), and 'cispo' has no use for it; got {delta}"
        )
    if settings.tis_cap is not None and settings.tis_cap < 1:
        raise MedSegError(
            f"tis_cap must be at least 1, the weight of a token that both agree about, or None; "
            f"got {settings.tis_cap}"
        )
    weights = settings.term_weights()
    if settings.multi_objective_aggregation == "normalize_then_sum":
        if not weights:
            raise MedSegError(
                "normalize_then_sum normalises the terms of reward_weights: give some, as in "
                "reward_weights=('dice_gain=1', 'cost=-1')"
            )
        if settings.advantage in ("gae", "batch"):
            raise MedSegError(
                f"normalize_then_sum compares within groups, advantage {settings.advantage!r} does "
                "not: use 'group', 'leave_one_out' or 'reward_to_go'"
            )
