"""Settings of reinforcement learning for policies that chat; nothing here imports torch or Ray."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from medseg_gym.errors import MedSegError
from medseg_gym.options import Options

_CHOICES = {
    "advantage": ("group", "group_to_go", "gae"),
    "loss": ("grpo", "dr_grpo", "dapo"),
    "precision": ("float32", "bfloat16"),
    "schedule": ("cosine", "linear", "constant"),
}


@dataclass(frozen=True, kw_only=True)
class ChatSettings(Options):
    """What GRPO and turn-level PPO share: model, groups, objective.

    Args:
        model: Folder of the checkpoint to start from; a supervised one, for a model that never
            makes a valid call has nothing to learn from.
        lora_rank: 0 trains all weights; else the rank of adapters on all linear layers.
        lora_alpha: Scale of the adapters; None is twice the rank.
        train_vision: Whether the vision tower learns too.
        precision: "bfloat16" computes in it (autocast); weights stay as they are stored.
        dtype: Of the stored weights: "auto" as they lie there, "float32" or "bfloat16".
        gradient_checkpointing: Compute activations twice instead of keeping them.
        temperature: Answers are drawn at this temperature; the loss uses the same one.
        max_new_tokens: Of an answer.
        history: What the model is shown: "all" pictures, the newest k, or "none".
        group_size: Episodes of one case; its rewards are compared with each other. 1 for "gae".
        groups: Cases of an iteration.
        advantage: "group": an episode's return less its group's mean, for all its tokens (GRPO).
            "group_to_go": what came after a turn, less the mean of that over the group's episodes
            that got so far; a process reward then counts for the turns that could earn it.
            "gae": turn-level generalised advantages from a value head (PPO).
        scale: Divide advantages by the spread of the group's returns ("gae": of all advantages).
        loss: How tokens are averaged: "grpo" within each episode, then over episodes (Shao et al.
            2024); "dr_grpo" by a constant, the most tokens that an episode could have (Liu et al.
            2025, who also leave `scale` out); "dapo" over all tokens (Yu et al. 2025).
        clip_low: The probability ratio counts down to 1 - clip_low.
        clip_high: And up to 1 + clip_high.
        kl: Weight of the divergence from the starting model (k3 of Schulman 2020); 0 keeps no
            reference.
        entropy: Weight of the entropy bonus.
        gae_lambda: Of the advantage estimate, "gae" alone.
        value_weight: Weight of the value's squared error, "gae" alone.
        value_warmup: First iterations in which the value head alone learns, "gae" alone: until it
            knows something its advantages are noise.
        minibatches: Gradient steps of an epoch; whole groups are dealt among them.
        micro_batch: Rows computed at once; gradients are accumulated over the rest.
        share_prompts: Compute the first prompt of a group's episodes once a step (Qwen3-VL
            without gradient checkpointing). False computes every row whole.
        weight_decay: Of AdamW.
        beta2: Of AdamW.
        iterations: Of the run, for the schedule.
        warmup: Iterations over which the learning rate rises.
        schedule: "cosine", "linear" or "constant".
        final_rate: Share of the learning rate that is left at the end.
        ratio_tolerance: How far the probability ratio of a token may be from 1 before the first
            gradient step of an iteration. Beyond it sampler and learner disagree about what was
            said, and training stops. None does not look; the default is for float32.
    """

    model: str = ""
    lora_rank: int = 0
    lora_alpha: int | None = None
    train_vision: bool = True
    precision: str = "float32"
    dtype: str = "auto"
    gradient_checkpointing: bool = False
    temperature: float = 1.0
    max_new_tokens: int = 128
    history: str = "all"
    group_size: int = 8
    groups: int = 16
    advantage: str = "group"
    scale: bool = True
    loss: str = "dapo"
    clip_low: float = 0.2
    clip_high: float = 0.28
    kl: float = 0.0
    entropy: float = 0.0
    gae_lambda: float = 0.95
    value_weight: float = 0.5
    value_warmup: int = 0
    minibatches: int = 1
    micro_batch: int = 16
    share_prompts: bool = True
    weight_decay: float = 0.0
    beta2: float = 0.99
    iterations: int = 100
    warmup: int = 5
    schedule: str = "linear"
    final_rate: float = 0.1
    ratio_tolerance: float | None = 1e-3

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise MedSegError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        for name in (
            *("group_size", "groups", "minibatches", "micro_batch", "iterations"),
            "max_new_tokens",
        ):
            if getattr(self, name) < 1:
                raise MedSegError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.temperature <= 0:
            raise MedSegError(f"answers are drawn: temperature must be > 0, got {self.temperature}")
        if self.advantage != "gae" and self.group_size < 2:
            raise MedSegError(
                f"advantage {self.advantage!r} compares episodes of one case: group_size must be "
                f"at least 2, got {self.group_size}"
            )
        if self.groups % self.minibatches:
            raise MedSegError(
                f"groups ({self.groups}) must be a multiple of minibatches ({self.minibatches}): "
                "groups stay whole"
            )

    @property
    def episodes(self) -> int:
        """Episodes of an iteration."""
        return self.groups * self.group_size


@dataclass(frozen=True, kw_only=True)
class ChatRun(ChatSettings):
    """A run of `medseg train grpo | chat-ppo`: the settings, cases and machines.

    Args:
        cases: What is trained on: the "train" split of this spec.
        backbone: Who segments.
        checkpoint: Weight file of the backbone.
        device: Of the backbone.
        reward: Name or formula for `rewards.make`.
        max_steps: Calls of an episode.
        image_size: Side of the picture that the model is shown; None as the checkpoint was trained.
        texts: Words of the environment, "full" or "terse"; None as the checkpoint was trained.
        lr: Of AdamW.
        epochs: Passes over an iteration's episodes.
        max_grad_norm: Gradients are scaled down to this norm.
        seed: Of cases, draws and new weights.
        num_envs: Slots of a runner, which answer as one batch; None is all its episodes. A multiple
            of `group_size`.
        env_runners: Processes that play; 0 plays in the learner's own, with the same weights.
        learners: Processes that learn, each from whole groups; 0 learns in this one.
        gpus_per_runner: GPUs of each runner.
        gpus_per_learner: GPUs of each learner.
        shared_backbone: Serve the backbone from one Ray actor to all runners.
        eval_every: Iterations between evaluations on the "val" split; 0 never evaluates.
        eval_cases: Cases of one evaluation.
        checkpoint_every: Iterations between checkpoints.
        keep: Newest checkpoints that are kept.
    """

    cases: str = "phantoms:abdomen"
    backbone: str = "pocket"
    checkpoint: str | None = None
    device: str = "auto"
    reward: str = "dice_gain"
    max_steps: int = 5
    image_size: int | None = None
    texts: str | None = None
    lr: float = 1e-6
    epochs: int = 1
    max_grad_norm: float = 0.3
    seed: int = 0
    num_envs: int | None = None
    env_runners: int = 0
    learners: int = 0
    gpus_per_runner: float = 0
    gpus_per_learner: float = 0
    shared_backbone: bool = False
    eval_every: int = 20
    eval_cases: int = 128
    checkpoint_every: int = 10
    keep: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "checkpoint_every", "keep", "eval_cases", "max_steps"):
            if getattr(self, name) < 1:
                raise MedSegError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def chat(self) -> dict[str, Any]:
        """The part that `ChatSettings` holds."""
        return {field.name: getattr(self, field.name) for field in fields(ChatSettings)}

    def env_options(self) -> dict[str, Any]:
        """Arguments of the environment besides cases, split and view."""
        return {
            "backbone": self.backbone,
            "checkpoint": self.checkpoint,
            "device": self.device,
            "reward": self.reward,
            "max_steps": self.max_steps,
        }

    def view(self) -> dict[str, Any]:
        """How the model is shown the environment: as its checkpoint was, unless told otherwise."""
        from medseg_agents.llm.checkpoint import read_view

        if not self.model:
            raise MedSegError("name the checkpoint to start from: --model FOLDER")
        saved, _ = read_view(self.model)
        own = {name: getattr(self, name) for name in ("image_size", "texts")}
        return {**saved, **{name: value for name, value in own.items() if value is not None}}


@dataclass(frozen=True, kw_only=True)
class GRPORun(ChatRun):
    """GRPO: advantages within groups of episodes of one case."""


@dataclass(frozen=True, kw_only=True)
class ChatPPORun(ChatRun):
    """PPO: one episode a case, advantages of turns from a value head."""

    group_size: int = 1
    groups: int = 128
    advantage: str = "gae"
    value_warmup: int = 5
