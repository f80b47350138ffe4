"""Options that several commands share, one class per topic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from medseg_gym.errors import MedSegError
from medseg_gym.options import Options

AUTO_TOOLS = "auto"
"""In place of the tools of an environment: those that its backbone can answer."""


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
class WordOptions(Options):
    """Words for segmenters that read them."""

    topic: ClassVar[str] = "Prompts"

    text_prompt: bool = False
    """Tell the segmenter the target's name with every prompt, where it takes text."""

    text_start: bool = False
    """Begin every image or slice with the mask that the segmenter makes of the target's name alone;
    policy stop then scores what words alone give.
    """

    def prompt_arguments(self) -> dict[str, Any]:
        """Return the arguments of an environment that were given."""
        given = {"text_prompt": self.text_prompt, "text_start": self.text_start}
        return {name: True for name, value in given.items() if value}


@dataclass(frozen=True, kw_only=True)
class PromptOptions(WordOptions):
    """Prompts that a policy may give."""

    tools: tuple[str, ...] = ()
    """Tools of the policy, comma between: box, positive_point, negative_point, undo, clear, stop,
    and propagate and look on whole volumes. Left out takes those that the policy was made for, else
    all that the segmenter can answer.
    """

    def prompt_arguments(self) -> dict[str, Any]:
        """Return the arguments of an environment that were given, tools among them always."""
        return {**super().prompt_arguments(), "tools": self.tools or AUTO_TOOLS}


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
class EnvironmentOptions(RewardOptions, WordOptions, SegmenterOptions):
    """The environment that is trained in, besides its cases and its view."""

    def env_options(self) -> dict[str, Any]:
        """Return the arguments of the environment besides cases, split and view."""
        return {
            "backbone": self.backbone,
            "checkpoint": self.checkpoint,
            "device": self.device,
            "reward": self.reward,
            "max_steps": self.max_steps,
            **WordOptions.prompt_arguments(self),
        }
