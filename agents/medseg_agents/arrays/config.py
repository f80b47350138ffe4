"""Settings of trainers on the array view; nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from medseg_agents.runs.options import TrackingOptions
from medseg_gym.errors import MedSegError
from medseg_gym.option_groups import EnvironmentOptions
from medseg_gym.options import Options


@dataclass(frozen=True, kw_only=True)
class TrainingCases(Options):
    """Cases that are trained on."""

    topic: ClassVar[str] = "Cases"

    cases: str = "phantoms:abdomen"
    """Case spec; its "train" split is trained on."""

    pool: int | None = 4000
    """Training cases drawn once and kept in memory with their embeddings; None takes the whole
    split, which for drawn cases means that every episode draws and encodes anew.
    """


@dataclass(frozen=True, kw_only=True)
class ViewOptions(Options):
    """Settings of the environment: the view of an episode, and the tools."""

    topic: ClassVar[str] = "View"

    image_size: int = 64
    """Side of the observed square. 64 is enough for a click and four times as fast as the
    environment's 128.
    """

    bins: int = 32
    """Cells per axis of the action's grid; with half the `image_size` every cell has a place of its
    own in the network.
    """

    tools: tuple[str, ...] = ("positive_point", "negative_point", "stop")
    """Tools of the agent. Fewer tools learn faster: with clicks alone, exploration is over one
    place instead of two corners.
    """


@dataclass(frozen=True)
class NetworkSize(Options):
    """Size and start of the network."""

    topic: ClassVar[str] = "Network"

    width: int = 16
    """Channels at the finest level; twice as many at the next, four times as many beyond."""

    patch: int = 2
    """Pixels along a side of what the finest level sees as one place: 2, 4 or 8. With 4 an
    observation of twice the side costs the same, and small structures are seen in finer detail.
    """

    levels: int = 3
    """Levels of resolution, each half as fine as the one before. A place sees about 12 places of
    the coarsest level along a side.
    """

    localizer: int = 0
    """Channels at the finest level of a second network, which says from the image alone what each
    target covers, and whose outline of the target is shown to the first; 0 leaves it out. `medseg
    train dagger --localizer-steps` trains it, other trainers take it from `--start`.
    """

    stop_bias: float = -2.0
    """Logit that Stop starts with, beside 0 for the others. A first policy that stops in most first
    steps sees too few clicks to learn where they pay, and learns that stopping is best.
    """


@dataclass(frozen=True, kw_only=True)
class StartOptions(Options):
    """Start of training."""

    topic: ClassVar[str] = "Start"

    start: str | None = None
    """Run of any trainer of array policies, or a checkpoint of one, whose network training goes on
    from; None begins with fresh weights. View, tools and size of the network must be the same. See
    `medseg_agents.arrays.starting`.
    """


@dataclass(frozen=True, kw_only=True)
class CloneOptions(Options):
    """Imitation of stored trajectories before the first rollout."""

    topic: ClassVar[str] = "Cloning"

    clone: str | None = None
    """Folder of stored trajectories to imitate before the first rollout; None starts from fresh
    weights. See `medseg_agents.arrays.cloning`.
    """

    clone_epochs: int = 12
    """Passes over them."""

    clone_learning_rate: float = 2e-3
    """Of Adam, falling to zero along a half cosine."""


@dataclass(frozen=True, kw_only=True)
class ProgressOptions(TrackingOptions):
    """Evaluation and checkpoints of a run."""

    topic: ClassVar[str] = "Evaluation and checkpoints"
    free: ClassVar[tuple[str, ...]] = ("eval_every", "eval_cases", "checkpoint_every", "test_cases")

    eval_every: int = 20_000
    """Environment steps between evaluations on the "val" split; 0 never evaluates."""

    eval_cases: int = 64
    """Cases of one evaluation."""

    checkpoint_every: int = 20_000
    """Environment steps between checkpoints."""

    test_cases: int = 500
    """Cases of the "test" split in the final comparison; 0 leaves it out."""


@dataclass(frozen=True, kw_only=True)
class ArraySettings(
    ProgressOptions,
    StartOptions,
    NetworkSize,
    ViewOptions,
    EnvironmentOptions,
    TrainingCases,
):
    """A run that trains a network of the array view; what all its trainers share."""

    topic: ClassVar[str] = "Training"
    free: ClassVar[tuple[str, ...]] = ("device",)

    device: str = "auto"
    """Of the backbone and of the network: auto, cpu, cuda, ..."""

    seed: int = 0
    """Of the network, the pool and the draws of cases."""

    steps: int = 100_000
    """Environment steps in all slots together."""

    num_envs: int = 16
    """Slots; one decoder call serves them all."""

    rollout: int = 32
    """Steps per slot between two updates."""

    minibatch: int = 256
    """Rows of one gradient step."""

    learning_rate: float = 1e-3
    """Of Adam at the start; falls to a tenth of it in a straight line."""

    value_weight: float = 0.5
    """Weight of the value's squared error."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "num_envs", "rollout", "minibatch", "width", "levels"):
            if getattr(self, name) < 1:
                raise MedSegError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.patch not in (2, 4, 8):
            raise MedSegError(f"patch must be 2, 4 or 8, got {self.patch}")

    @property
    def training_cases(self) -> str:
        """Spec of the training cases."""
        return self.cases if self.pool is None else f"pool:{self.pool}@{self.seed}:{self.cases}"

    @property
    def batch(self) -> int:
        """Environment steps of one update."""
        return self.num_envs * self.rollout

    def progress_at(self, step: float) -> float:
        """Return the share of the schedules, 0..1, that is done after so many steps."""
        return min(1.0, step / self.scheduled(self.steps))

    def learning_rate_at(self, progress: float) -> float:
        """Learning rate when `progress`, 0..1, of all steps is done."""
        return self.learning_rate * (1 - 0.9 * min(1.0, progress))

    def view(self, targets: tuple[str, ...]) -> dict[str, Any]:
        """Return the view's options that a checkpoint keeps, as arguments of the environment."""
        return {
            "image_size": self.image_size,
            "bins": self.bins,
            "tools": list(self.tools),
            "targets": list(targets),
        }


@dataclass(frozen=True, kw_only=True)
class PPOSettings(CloneOptions, ArraySettings):
    """PPO on the array view; what SB3 and RLlib share."""

    topic: ClassVar[str] = "PPO"

    epochs: int = 3
    """Passes over a rollout."""

    gamma: float = 1.0
    """Discount. 1: the return is Dice at the end minus the cost."""

    gae_lambda: float = 0.95
    """Of the advantage estimate."""

    clip: float = 0.2
    """Range of the probability ratio."""

    entropy: float = 0.01
    """Weight of the entropy bonus at the start. With too little of it, small targets that were not
    hit by chance early on are never found.
    """

    final_entropy: float = 0.01
    """Its weight at the end; between them it is a straight line."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epochs < 1:
            raise MedSegError(f"epochs must be at least 1, got {self.epochs}")
        if (self.num_envs * self.rollout) % self.minibatch:
            raise MedSegError(
                f"num_envs * rollout = {self.num_envs * self.rollout} must be a multiple of "
                f"minibatch = {self.minibatch}"
            )
        if self.start is not None and self.clone is not None:
            raise MedSegError("start and clone both say what to begin with: give one of them")

    def entropy_at(self, progress: float) -> float:
        """Weight of the entropy bonus when `progress`, 0..1, of all steps is done."""
        return self.entropy + (self.final_entropy - self.entropy) * min(1.0, progress)
