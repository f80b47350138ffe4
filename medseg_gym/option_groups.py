"""Options that several commands share, one class per topic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from medseg_gym.errors import MedSegError
from medseg_gym.options import Options


@dataclass(frozen=True, kw_only=True)
class CaseOptions(Options):
    """Cases that are played."""

    topic: ClassVar[str] = "Cases"

    cases: str = "samples"
    """Case spec: samples, phantoms, biomedparse:PATH, parquet:PATH, nifti:PATH, npz:PATH,
    dicom:PATH or folder:PATH, with options as PATH?name=value&name=value.
    """

    split: str = "auto"
    """train, val, test, or all of them together; auto is test, or all where the data name no
    splits and fewer than 5 patients or images would be in it.
    """

    limit: int | None = None
    """First so many cases; left out plays all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.limit is not None and self.limit < 1:
            raise MedSegError(f"limit must be at least 1, got {self.limit}")


@dataclass(frozen=True, kw_only=True)
class DeviceOptions(Options):
    """Device of a segmenter."""

    topic: ClassVar[str] = "Segmenter"

    device: str = "auto"
    """auto (CUDA where there is one), cpu, cuda, cuda:1, ..."""


@dataclass(frozen=True, kw_only=True)
class WeightOptions(DeviceOptions):
    """Weights of a segmenter, and where it runs."""

    checkpoint: str | None = None
    """Weight file; left out takes the backbone's official one where it is found."""


@dataclass(frozen=True, kw_only=True)
class SegmenterOptions(WeightOptions):
    """The segmenter that is prompted."""

    backbone: str = "pocket"
    """Name, as in `medseg backbones list`."""


@dataclass(frozen=True, kw_only=True)
class LoadOptions(Options):
    """Settings of loading a segmenter."""

    topic: ClassVar[str] = "Segmenter"

    dtype: str | None = None
    """float32, bfloat16 or float16; left out takes the backbone's own."""

    image_size: int | None = None
    """Side of the encoder's input, for backbones that let it be chosen."""

    random_weights: bool = False
    """Fresh weights instead of a file, for timing."""

    def load_arguments(self) -> dict[str, Any]:
        """Return the arguments of `backbones.load` that were given."""
        values = {
            "dtype": self.dtype,
            "image_size": self.image_size,
            "random_weights": self.random_weights or None,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class EpisodeOptions(Options):
    """Episodes that are played."""

    topic: ClassVar[str] = "Episodes"

    max_steps: int = 5
    """Actions per episode; running out of them ends it."""


@dataclass(frozen=True, kw_only=True)
class RewardOptions(EpisodeOptions):
    """Episodes whose reward matters."""

    reward: str = "dice_gain"
    """Name or formula for `rewards.make`."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentOptions(RewardOptions, SegmenterOptions):
    """The environment that is trained in, besides its cases and its view."""

    def env_options(self) -> dict[str, Any]:
        """Return the arguments of the environment besides cases, split and view."""
        return {
            "backbone": self.backbone,
            "checkpoint": self.checkpoint,
            "device": self.device,
            "reward": self.reward,
            "max_steps": self.max_steps,
        }
