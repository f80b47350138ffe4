"""Options of reinforcement learning for policies that chat, one class per topic.

Names follow TRL's `GRPOConfig` where they mean the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from medseg_agents.llm.engine_options import EngineOptions
from medseg_agents.runs.options import TrackingOptions
from medseg_gym.errors import MedSegError
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
    """Train the vision tower too."""

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
class GenerationSettings(EngineOptions):
    """Settings of generation while training."""

    topic: ClassVar[str] = "Generation"
    free: ClassVar[tuple[str, ...]] = ("vllm_python", "vllm_options", "vllm_timeout", "vllm_sleep")

    temperature: float = 1.0
    """Completions are drawn at this temperature; the loss uses the same one."""

    max_completion_length: int = 128
    """Tokens of one turn's completion at most. (In TRL, whose completion is a whole conversation,
    the name means all turns together.)"""

    history: str = "all"
    """Images that the model is shown: "all", the newest k, or "none" (the task and the newest
    turn alone)."""

    vllm_sleep: bool = False
    """vLLM gives its GPU memory back while the learner learns (its sleep mode), so that both fit
    on one GPU; without a GPU nothing changes."""


@dataclass(frozen=True, kw_only=True)
class AdvantageSettings(Options):
    """Groups of episodes, and the advantages of their turns."""

    topic: ClassVar[str] = "Groups and advantages"

    num_generations: int = 8
    """Episodes of one case, a group; their rewards are compared with each other. 1 for "gae"."""

    groups: int = 16
    """Cases of an iteration."""

    branch: Literal["start", "turn"] = "start"
    """Begin of the episodes of a group. "start": at the start of their case. "turn": all in one
    state, at a turn that a trunk was played to and that is drawn per group; then credit goes to
    that turn and those behind it, and the trunk's are prompt alone (the "vine" of TRPO, Schulman
    et al. 2015, section 5.2; compare VinePPO, Kazemnejad et al. 2024)."""

    advantage: Literal["group", "leave_one_out", "batch", "reward_to_go", "gae"] = "group"
    """"group": an episode's return less its group's mean, for all its tokens (GRPO, Shao et al.
    2024, section 4.1.2). "leave_one_out": less the mean of the group's other episodes (RLOO,
    Ahmadian et al. 2024). "batch": less the mean of the whole iteration (REINFORCE++, Hu et al.
    2025). "reward_to_go": the rewards from a turn on, less the mean of that over the group's other
    episodes that reached the turn; a reward of every step then counts for the turns that could earn
    it (compare the process supervision of Shao et al. 2024, section 4.1.3). "gae": turn-level
    generalised advantages from a value head (Schulman et al. 2016, eq. 16)."""

    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Divide advantages by the standard deviation of returns in the "group" or in the "batch", the
    whole iteration (PPO Lite, Liu et al. 2025, 2508.08221); or not: "none", as in Dr. GRPO (Liu et
    al. 2025) and RLOO. The advantages "batch" and "gae" know one spread alone, that of the whole
    iteration ("gae": of its advantages), unless "none" is given."""

    reward_weights: tuple[str, ...] = ()
    """Weights of the reward's terms, as dice_gain=1,cost=-0.5: an episode then earns the weighted
    sum of its terms as they are logged (`reward/<term>/mean`), a term without a weight nothing.
    Without any, it earns what the environment's reward says."""

    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = (
        "sum_then_normalize"
    )
    """"normalize_then_sum" compares and normalises every term of `reward_weights` within its group
    by itself, and then the weighted sum over the iteration, whatever `scale_rewards` says (GDPO,
    2026, 2601.05242)."""

    gae_lambda: float = 0.95
    """Lambda of the advantage estimate, "gae" alone (Schulman et al. 2016)."""

    critic_warmup: int = 0
    """First iterations in which the value head alone learns, "gae" alone: until it knows something
    its advantages are noise (compare the value pretraining of VC-PPO, Yuan et al. 2025)."""

    def term_weights(self) -> dict[str, float]:
        """Return `reward_weights` by term.

        Raises:
            MedSegError: A text of another form than TERM=WEIGHT, or a term twice.
        """
        weights: dict[str, float] = {}
        for text in self.reward_weights:
            name, _, number = (part.strip() for part in text.partition("="))
            try:
                weight = float(number)
            except ValueError:
                weight = math.nan
            if not name or not math.isfinite(weight):
                raise MedSegError(f"reward_weights: {text!r} is not TERM=WEIGHT, as dice_gain=1 is")
            if name in weights:
                raise MedSegError(f"reward_weights: {name} has two weights")
            weights[name] = weight
        return weights


@dataclass(frozen=True, kw_only=True)
class CaseSettings(Options):
    """Choice of the cases that an iteration plays."""

    topic: ClassVar[str] = "Groups and advantages"

    dynamic_sampling: bool = False
    """Play further groups in the place of those whose episodes all earn the same, which teach
    nothing (DAPO, Yu et al. 2025, section 3.2)."""

    max_num_gen_batches: int = 3
    """Rounds of playing in an iteration with `dynamic_sampling`, at most (verl's name); what is
    still missing then is filled with groups without spread."""

    curriculum: Literal["none", "success"] = "none"
    """"none" deals every case once before any is dealt again. "success" draws a case with a
    probability proportional to p(1 - p) + 0.05, p its success rate lately, 1/2 before it was played
    (learnability, Foster and Foerster 2025)."""

    success_dice: float = 0.8
    """Final Dice from which an episode of the curriculum succeeds."""


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings(Options):
    """The loss."""

    topic: ClassVar[str] = "Objective"

    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo"] = "dapo"
    """Average over tokens. "grpo": within each episode, then over episodes (Shao et al. 2024).
    "dr_grpo": by a constant, the tokens that an episode could have at most (Liu et al. 2025, who
    also set `scale_rewards` to "none"). "dapo": over all tokens of a gradient step (Yu et al. 2025,
    section 3.3). "bnpo": over the tokens of each micro-batch, as in TRL. "cispo": as "dapo", and
    the ratio is a weight that is bounded at `epsilon_high` instead of clipped, so that every token
    has a gradient (MiniMax-M1, 2025, eq. 4)."""

    importance_sampling_level: Literal["token", "turn", "sequence"] = "token"
    """Level of a probability ratio: each "token" (PPO); or the geometric mean over a
    "sequence", all that an episode generated while its conversation grew (GSPO, Zheng et al. 2025,
    eq. 7, with loss_type "grpo"); or over a "turn", one completion."""

    epsilon: float = 0.2
    """The probability ratio counts down to 1 - epsilon (PPO, Schulman et al. 2017, eq. 7)."""

    epsilon_high: float = 0.28
    """And up to 1 + epsilon_high ("clip higher" of DAPO, Yu et al. 2025, section 3.1). Under
    "cispo" it is the bound itself, 5.0 by ScaleRL (Khatri et al. 2025)."""

    delta: float | None = None
    """Bound of the ratio where the advantage is negative, above 1 + epsilon_high (dual clip, Ye et
    al. 2020, eq. 5, there c = 3; INTELLECT-2, 2025). None has no such bound."""

    beta: float = 0.0
    """Weight of the KL divergence from the starting model (Shao et al. 2024, eq. 4; estimator k3 of
    Schulman 2020); 0 keeps no reference."""

    use_bias_correction_kl: bool = False
    """Weigh that divergence by the probability ratio, which makes its gradient unbiased
    (DeepSeek-V3.2, 2025, eq. 7). TRL does so by default."""

    entropy: float = 0.0
    """Weight of the entropy bonus (PPO, Schulman et al. 2017, eq. 9)."""

    value_weight: float = 0.5
    """Weight of the value's squared error, "gae" alone (PPO, Schulman et al. 2017, eq. 9)."""

    tis_cap: float | None = 2.0
    """Truncated importance sampling: what a token teaches is weighed by its probability under the
    learner, before the iteration's first gradient step, by that under the sampler, at most this
    (Yao et al. 2025). Clipping then compares with the learner's own probabilities from before the
    first step, which costs a forward pass where `minibatches` is above 1. None weighs nothing and
    clips against the sampler's probabilities."""

    tis_level: Literal["token", "sequence"] = "token"
    """Level of that weight: each token or, as the product over its tokens, a sequence (see
    `importance_sampling_level`)."""

    max_logp_difference: float | None = None
    """Training stops where the log-probabilities of sampler and learner differ by more than this,
    nats, in the mean over the tokens of an iteration's first gradient step: they then disagree
    about what was read or drawn. None is 0.0001 where the learner computes in float32 and 0.1 where
    bfloat16 or float16 rounds; a large number never stops."""

    mask_truncated_completions: bool = False
    """Learn nothing from completions that were cut at `max_completion_length` (overlong filtering
    of DAPO, Yu et al. 2025, section 3.4)."""


@dataclass(frozen=True, kw_only=True)
class OptimiserSettings(Options):
    """Gradient steps, optimiser and length of the run."""

    topic: ClassVar[str] = "Optimisation"
    free: ClassVar[tuple[str, ...]] = ("micro_batch",)

    minibatches: int = 1
    """Gradient steps of an epoch; whole groups are dealt among them."""

    micro_batch: int = 16
    """Longest rows computed at once, of shorter ones as many more as take the same room; gradients
    are accumulated over the rest."""

    share_prompts: bool = True
    """Compute the first prompt of a group's episodes once a step (Qwen3-VL). False computes every
    row whole."""

    logit_chunk: int = 512
    """Completion tokens whose logits exist at once; they are computed a second time in the backward
    pass where there are more. 0 computes all at once."""

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
class ShardSettings(Options):
    """Settings of several learners that hold one model."""

    topic: ClassVar[str] = "Machines"
    free: ClassVar[tuple[str, ...]] = ("shard",)

    shard: bool = False
    """Every learner holds a share of parameters, gradients and Adam's moments, and gathers a layer
    at a time (FSDP2, Zhao et al. 2023); False gives each learner all of them. Needs at least two
    learners and a model of the Qwen3-VL family."""


@dataclass(frozen=True, kw_only=True)
class EpisodeSettings(EnvironmentOptions):
    """Cases, segmenter, and how the model is shown them."""

    topic: ClassVar[str] = "Cases and environment"
    free: ClassVar[tuple[str, ...]] = ("device",)

    env: str | None = None
    """MedSegChat-v0, or MedSegVolumeChat-v0, whose `cases` are volumes, as phantoms-volume. None is
    the one that the checkpoint was trained for; it cannot play another."""

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
    free: ClassVar[tuple[str, ...]] = (
        "num_envs",
        "env_runners",
        "learners",
        "gpus_per_runner",
        "gpus_per_learner",
        "shared_backbone",
    )

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
class LogSettings(TrackingOptions):
    """Outputs shown while a run trains."""

    topic: ClassVar[str] = "Logging"
    free: ClassVar[tuple[str, ...]] = ("log_samples_every", "log_samples")

    log_samples_every: int = 10
    """Iterations between tables of sampled conversations with their images; 0 for none."""

    log_samples: int = 8
    """Episodes in such a table, whole groups first; at most 16 of each runner."""


@dataclass(frozen=True, kw_only=True)
class ProgressSettings(LogSettings):
    """Evaluation and checkpoints of a run."""

    topic: ClassVar[str] = "Evaluation and checkpoints"
    free: ClassVar[tuple[str, ...]] = ("eval_every", "eval_cases", "checkpoint_every", "keep")

    eval_every: int = 20
    """Iterations between evaluations on the "val" split; 0 never evaluates."""

    eval_cases: int = 128
    """Cases of one evaluation."""

    checkpoint_every: int = 10
    """Iterations between checkpoints."""

    keep: int = 2
    """Newest checkpoints that are kept."""
