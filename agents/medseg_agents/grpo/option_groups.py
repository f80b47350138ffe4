"""Options of reinforcement learning for policies that chat, one class per topic.

Names follow TRL's `GRPOConfig` where they mean the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from medseg_gym.option_groups import EnvironmentOptions
from medseg_gym.options import Options


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Options):
    """The model that is trained."""

    topic: ClassVar[str] = "Model"

    model: str = ""
    """Folder of the checkpoint to start from, a whole model or adapters; a supervised one, for a
    model that never makes a valid call has nothing to learn from."""

    base: str | None = None
    """Folder of the base model of the adapters to start from; None is the one that they name."""

    lora_rank: int | None = None
    """Rank of adapters on all linear layers (LoRA, Hu et al. 2021); 0 trains all weights. None goes
    on with the adapters of the checkpoint, or trains all weights where it has none. Adapters to
    start from are trained on where this is their rank, else merged into the weights first."""

    lora_alpha: int | None = None
    """Scale of new adapters; None is twice the rank."""

    train_vision: bool = True
    """Whether the vision tower learns too."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """"bfloat16" computes in it (autocast); weights stay as they are."""

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of weights that stay frozen, which are the base's under adapters: "auto" as the checkpoint
    stores them. Weights that are trained are float32 whatever this says, for a step of AdamW at a
    small rate is lost in bfloat16's rounding."""

    save_dtype: Literal["float32", "base"] = "float32"
    """Of the saved weights of a whole model: as they were trained, or rounded to the type that the
    checkpoint to start from is stored in. Adapters are float32."""

    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them (Chen et al. 2016)."""


@dataclass(frozen=True, kw_only=True)
class GenerationSettings(Options):
    """How completions are drawn while training."""

    topic: ClassVar[str] = "Generation"

    temperature: float = 1.0
    """Completions are drawn at this temperature; the loss uses the same one."""

    max_completion_length: int = 128
    """Tokens of one turn's completion at most. (In TRL, whose completion is a whole conversation,
    the name means all turns together.)"""

    history: str = "all"
    """Images that the model is shown: "all", the newest k, or "none" (the task and the newest
    turn alone)."""


@dataclass(frozen=True, kw_only=True)
class AdvantageSettings(Options):
    """Groups of episodes, and the advantages of their turns."""

    topic: ClassVar[str] = "Groups and advantages"

    num_generations: int = 8
    """Episodes of one case, a group; their rewards are compared with each other. 1 for "gae"."""

    groups: int = 16
    """Cases of an iteration."""

    advantage: Literal["group", "reward_to_go", "gae"] = "group"
    """"group": an episode's return less its group's mean, for all its tokens (GRPO, Shao et al.
    2024, section 4.1.2). "reward_to_go": the rewards from a turn on, less the mean of that over
    the group's episodes that reached the turn; a reward of every step then counts for the turns
    that could earn it (compare the process supervision of Shao et al. 2024, section 4.1.3). "gae":
    turn-level generalised advantages from a value head (Schulman et al. 2016, eq. 16)."""

    scale_rewards: bool = True
    """Divide advantages by the standard deviation of the group's returns ("gae": of all
    advantages). Off in Dr. GRPO (Liu et al. 2025)."""

    gae_lambda: float = 0.95
    """Lambda of the advantage estimate, "gae" alone (Schulman et al. 2016)."""

    critic_warmup: int = 0
    """First iterations in which the value head alone learns, "gae" alone: until it knows something
    its advantages are noise (compare the value pretraining of VC-PPO, Yuan et al. 2025)."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings(Options):
    """The loss."""

    topic: ClassVar[str] = "Objective"

    loss_type: Literal["grpo", "dr_grpo", "dapo"] = "dapo"
    """How tokens are averaged. "grpo": within each episode, then over episodes (Shao et al. 2024).
    "dr_grpo": by a constant, the tokens that an episode could have at most (Liu et al. 2025, who
    also turn `scale_rewards` off). "dapo": over all tokens (Yu et al. 2025, section 3.3)."""

    epsilon: float = 0.2
    """The probability ratio counts down to 1 - epsilon (PPO, Schulman et al. 2017, eq. 7)."""

    epsilon_high: float = 0.28
    """And up to 1 + epsilon_high ("clip higher" of DAPO, Yu et al. 2025, section 3.1)."""

    beta: float = 0.0
    """Weight of the KL divergence from the starting model (Shao et al. 2024, eq. 4; estimator k3 of
    Schulman 2020); 0 keeps no reference."""

    entropy: float = 0.0
    """Weight of the entropy bonus (PPO, Schulman et al. 2017, eq. 9)."""

    value_weight: float = 0.5
    """Weight of the value's squared error, "gae" alone (PPO, Schulman et al. 2017, eq. 9)."""

    max_ratio_deviation: float | None = 1e-3
    """How far the probability ratio of a token may be from 1 before the first gradient step of an
    iteration. Beyond it sampler and learner disagree about a completion, and training stops. None
    does not look; the default is for float32."""


@dataclass(frozen=True, kw_only=True)
class OptimiserSettings(Options):
    """Gradient steps, optimiser and length of the run."""

    topic: ClassVar[str] = "Optimisation"

    minibatches: int = 1
    """Gradient steps of an epoch; whole groups are dealt among them."""

    micro_batch: int = 16
    """Rows computed at once; gradients are accumulated over the rest."""

    share_prompts: bool = True
    """Compute the first prompt of a group's episodes once a step (Qwen3-VL without gradient
    checkpointing). False computes every row whole."""

    weight_decay: float = 0.0
    """Of AdamW (Loshchilov and Hutter 2019)."""

    adam_beta2: float = 0.99
    """Decay of AdamW's second moments."""

    value_lr: float = 1e-3
    """Learning rate of the value head, "gae" alone, which begins with zeros; it follows the same
    schedule."""

    iterations: int = 100
    """Of the run, for the schedule."""

    warmup: int = 5
    """Iterations over which the learning rate rises."""

    schedule: Literal["cosine", "linear", "constant"] = "linear"
    """Of the learning rate after it has risen."""

    final_rate: float = 0.1
    """Share of the learning rate that is left at the end."""


@dataclass(frozen=True, kw_only=True)
class EpisodeSettings(EnvironmentOptions):
    """Cases, segmenter, and how the model is shown them."""

    topic: ClassVar[str] = "Cases and environment"

    cases: str = "phantoms:abdomen"
    """Case spec; its "train" split is trained on."""

    image_size: int | None = None
    """Side of the image that the model is shown; None as the checkpoint was trained."""

    texts: str | None = None
    """Words of the environment, "full" or "terse"; None as the checkpoint was trained."""


@dataclass(frozen=True, kw_only=True)
class UpdateSettings(Options):
    """The part of the optimisation that RLlib has names for."""

    topic: ClassVar[str] = "Optimisation"

    lr: float = 1e-6
    """Learning rate of AdamW; the value head has its own, `value_lr`."""

    epochs: int = 1
    """Passes over an iteration's episodes."""

    max_grad_norm: float = 0.3
    """Gradients are scaled down to this norm."""

    seed: int = 0
    """Of cases, draws and new weights."""


@dataclass(frozen=True, kw_only=True)
class MachineSettings(Options):
    """Processes and GPUs."""

    topic: ClassVar[str] = "Machines"

    num_envs: int | None = None
    """Slots of a runner, which generate as one batch; None is all its episodes. A multiple of
    `num_generations`."""

    env_runners: int = 0
    """Processes that play; 0 plays in the learner's own, with the same weights."""

    learners: int = 0
    """Processes that learn, each from whole groups; 0 learns in this one."""

    gpus_per_runner: float | None = None
    """GPUs of each runner. None divides evenly what the learners leave, and is 0 where there are no
    GPUs or `device` is "cpu"."""

    gpus_per_learner: float | None = None
    """GPUs of each learner. None is 1 where there are GPUs and `device` is not "cpu". 0 beside GPUs
    is refused unless `device` is "cpu", which keeps the whole run off them."""

    shared_backbone: bool = False
    """Serve the backbone from one Ray actor to all runners; it asks for a tenth of a GPU where
    there are GPUs."""


@dataclass(frozen=True, kw_only=True)
class ProgressSettings(Options):
    """Evaluation and checkpoints of a run."""

    topic: ClassVar[str] = "Evaluation and checkpoints"

    eval_every: int = 20
    """Iterations between evaluations on the "val" split; 0 never evaluates."""

    eval_cases: int = 128
    """Cases of one evaluation."""

    checkpoint_every: int = 10
    """Iterations between checkpoints."""

    keep: int = 2
    """Newest checkpoints that are kept."""
