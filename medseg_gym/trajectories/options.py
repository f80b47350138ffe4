"""Options of `medseg trajectories`; nothing here imports torch or pyarrow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from medseg_gym.cases import load_cases
from medseg_gym.cases.source import AUTO
from medseg_gym.cases.volume_source import load_volumes
from medseg_gym.option_groups import (
    CaseOptions,
    PromptOptions,
    RewardOptions,
    SegmenterOptions,
    WeightOptions,
)
from medseg_gym.options import Options, short
from medseg_gym.parallel.options import WorkerOptions
from medseg_gym.trajectories.errors import TrajectoryError


@dataclass(frozen=True, kw_only=True)
class GenerateOptions(WorkerOptions, PromptOptions, RewardOptions, SegmenterOptions, CaseOptions):
    """Options of `medseg trajectories generate`."""

    topic: ClassVar[str] = "Playing"

    split: str = "train"
    """train, val, test, or all of them together."""

    env: str = "MedSeg-v0"
    """MedSeg-v0, or MedSegVolume-v0: then `cases` is a spec of volumes, as phantoms-volume, and
    `annotator` a policy of volumes, as oracle-key-slice."""

    annotator: str = "hybrid"
    """Policy for `make_policy`, as hybrid or hybrid:tau=0.02."""

    rollouts: int = 1
    """Episodes per case."""

    seed: int = 0
    """Of the policy, and part of the episodes' keys."""

    num_envs: int = 8
    """Episodes played at once by a worker; it decides what is in a batch."""

    def __post_init__(self) -> None:
        if self.env not in ("MedSeg-v0", "MedSegVolume-v0"):
            raise TrajectoryError(
                f"env must be MedSeg-v0 or MedSegVolume-v0, got {self.env!r}; record any other "
                "environment with VectorRecorder"
            )
        super().__post_init__()
        for name in ("num_envs", "rollouts"):
            if getattr(self, name) < 1:
                raise TrajectoryError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.split == AUTO:
            raise TrajectoryError(f"split {AUTO} is for evaluation: it may be the test split")
        if not 0 <= self.seed < 2**63:
            raise TrajectoryError(f"seed must be in 0..2**63 - 1, got {self.seed}")

    def keys(self) -> list[str]:
        """Of the cases to play."""
        if self.env == "MedSegVolume-v0":
            return list(load_volumes(self.cases, self.split).keys[: self.limit])
        return list(load_cases(self.cases, self.split).keys[: self.limit])


@dataclass(frozen=True, kw_only=True)
class RelocatedCases(Options):
    """Present place of the cases of a store."""

    topic: ClassVar[str] = "Cases"

    cases: str | None = None
    """Case spec to look in instead of the recorded one."""


@dataclass(frozen=True, kw_only=True)
class ReplayOptions(WeightOptions, RelocatedCases):
    """Options of `medseg trajectories replay`."""

    topic: ClassVar[str] = "Playing"

    backbone: str | None = None
    """Name, as in `medseg backbones list`; left out takes the recorded one."""

    num_envs: int = 8
    """Episodes at once."""

    limit: int | None = None
    """Only the first so many episodes."""


@dataclass(frozen=True, kw_only=True)
class RescoreOptions(Options):
    """Options of `medseg trajectories rescore`."""

    topic: ClassVar[str] = "Reward"

    reward: str
    """Name or formula of the reward, for `rewards.make`."""


@dataclass(frozen=True, kw_only=True)
class ShowOptions(RelocatedCases):
    """Options of `medseg trajectories show`."""

    topic: ClassVar[str] = "Contact sheet"

    count: int = short("-n", 8)
    """Episodes."""


@dataclass(frozen=True, kw_only=True)
class ShownOptions(RelocatedCases):
    """Settings of the conversations in a training set."""

    topic: ClassVar[str] = "Export"

    image_size: int = 512
    """Side of the images in pixels."""

    texts: str = "full"
    """full, or terse for tiny models."""

    overlay: str = "fill"
    """The mask: fill, outline or none."""

    overlay_strength: float = 0.5
    """1 paints opaque."""

    coordinates: str = "grid1000"
    """Notation of places in calls: grid1000, fraction or pixel."""

    overview_size: int | None = None
    """Side of the overview's squares in pixels, of episodes on volumes; None takes the default of
    MedSegVolumeChat-v0."""

    def chat(self) -> dict[str, Any]:
        """Return the arguments of the chat environment."""
        size = self.overview_size
        return {
            "image_size": self.image_size,
            "texts": self.texts,
            "overlay": self.overlay,
            "overlay_strength": self.overlay_strength,
            "coordinates": self.coordinates,
            **({} if size is None else {"overview_size": size}),
        }


@dataclass(frozen=True, kw_only=True)
class ExportOptions(ShownOptions):
    """Options of `medseg trajectories export`."""

    topic: ClassVar[str] = "Export"

    format: str = "chat-parquet"
    """chat-parquet, jsonl or verl-parquet (images alone)."""


@dataclass(frozen=True, kw_only=True)
class PairsOptions(ShownOptions):
    """Options of `medseg trajectories pairs`."""

    topic: ClassVar[str] = "Export"

    margin: float = 0.02
    """Least advantage of the chosen call, in units of the recorded reward."""

    per_state: int = 1
    """Pairs of one state at most: those that differ most."""
