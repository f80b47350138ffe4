"""Every knob of a training run, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medseg_agents.runs.settings import StoredSettings
from medseg_gym.errors import MedSegError


@dataclass(frozen=True, kw_only=True)
class PPOSettings(StoredSettings):
    """PPO on the array view; what SB3 and RLlib share.

    Args:
        cases: What is trained on: the "train" split of this spec.
        pool: Training cases drawn once and kept in memory with their embeddings; None takes the
            whole split, which for drawn cases means that every episode draws and encodes anew.
        backbone: Who segments.
        checkpoint: Weight file of the backbone.
        device: Of the backbone and of the network.
        reward: Name or formula for `rewards.make`.
        max_steps: Actions per episode.
        image_size: Side of the observed square. 64 is enough for a click and four times as fast as
            the environment's 128.
        bins: Cells per axis of the action's grid; with half the `image_size` every cell has a
            place of its own in the network.
        tools: What the agent may do. Fewer tools learn faster: with clicks alone, exploration is
            over one place instead of two corners.
        seed: Of the network, the pool and the draws of cases.
        steps: Environment steps in all slots together.
        num_envs: Slots; one decoder call serves them all.
        rollout: Steps per slot between two updates.
        minibatch: Rows of one gradient step.
        epochs: Passes over a rollout.
        learning_rate: Of Adam at the start; falls to a tenth of it in a straight line.
        gamma: Discount. 1: the return is Dice at the end minus the cost.
        gae_lambda: Of the advantage estimate.
        clip: Range of the probability ratio.
        entropy: Weight of the entropy bonus at the start. With too little of it, small targets
            that were not hit by chance early on are never found.
        final_entropy: Its weight at the end; between them it is a straight line.
        value_weight: Weight of the value's squared error.
        width: See `NetworkConfig`.
        stop_bias: See `NetworkConfig`.
        clone: Folder of stored trajectories to imitate before the first rollout; None starts from
            fresh weights. See `medseg_agents.arrays.cloning`.
        clone_epochs: Passes over them.
        clone_learning_rate: Of Adam, falling to zero along a half cosine.
        eval_every: Environment steps between evaluations on the "val" split; 0 never evaluates.
        eval_cases: Cases of one evaluation.
        checkpoint_every: Environment steps between checkpoints.
        test_cases: Cases of the "test" split in the final comparison; 0 leaves it out.
    """

    cases: str = "phantoms:abdomen"
    pool: int | None = 4000
    backbone: str = "pocket"
    checkpoint: str | None = None
    device: str = "auto"
    reward: str = "dice_gain"
    max_steps: int = 5
    image_size: int = 64
    bins: int = 32
    tools: tuple[str, ...] = ("positive_point", "negative_point", "stop")
    seed: int = 0
    steps: int = 100_000
    num_envs: int = 16
    rollout: int = 32
    minibatch: int = 256
    epochs: int = 3
    learning_rate: float = 1e-3
    gamma: float = 1.0
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy: float = 0.01
    final_entropy: float = 0.01
    value_weight: float = 0.5
    width: int = 16
    stop_bias: float = -2.0
    clone: str | None = None
    clone_epochs: int = 12
    clone_learning_rate: float = 2e-3
    eval_every: int = 20_000
    eval_cases: int = 64
    checkpoint_every: int = 20_000
    test_cases: int = 500

    def __post_init__(self) -> None:
        for name in ("steps", "num_envs", "rollout", "minibatch", "epochs", "width"):
            if getattr(self, name) < 1:
                raise MedSegError(f"{name} must be at least 1, got {getattr(self, name)}")
        if (self.num_envs * self.rollout) % self.minibatch:
            raise MedSegError(
                f"num_envs * rollout = {self.num_envs * self.rollout} must be a multiple of "
                f"minibatch = {self.minibatch}"
            )

    @property
    def training_cases(self) -> str:
        """Spec of the training cases."""
        return self.cases if self.pool is None else f"pool:{self.pool}@{self.seed}:{self.cases}"

    @property
    def batch(self) -> int:
        """Environment steps of one update."""
        return self.num_envs * self.rollout

    def learning_rate_at(self, progress: float) -> float:
        """Learning rate when `progress`, 0..1, of all steps is done."""
        return self.learning_rate * (1 - 0.9 * min(1.0, progress))

    def entropy_at(self, progress: float) -> float:
        """Weight of the entropy bonus when `progress`, 0..1, of all steps is done."""
        return self.entropy + (self.final_entropy - self.entropy) * min(1.0, progress)

    def view(self, targets: tuple[str, ...]) -> dict[str, Any]:
        """Return the view's options that a checkpoint keeps, as arguments of the environment."""
        return {
            "image_size": self.image_size,
            "bins": self.bins,
            "tools": list(self.tools),
            "targets": list(targets),
        }

    def env_options(self) -> dict[str, Any]:
        """Arguments of the environment besides cases, split and view."""
        return {
            "backbone": self.backbone,
            "checkpoint": self.checkpoint,
            "device": self.device,
            "reward": self.reward,
            "max_steps": self.max_steps,
        }
