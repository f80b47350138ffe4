"""Options of `medseg run`, `medseg eval` and `medseg compare`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from medseg_agents.evaluation.failed_cases import MAX_FAILURES
from medseg_agents.evaluation.protocols.options import ProtocolOptions
from medseg_gym.errors import MedSegError, nearest
from medseg_gym.option_groups import (
    CaseOptions,
    DeviceOptions,
    PromptOptions,
    RewardOptions,
    SegmenterOptions,
)
from medseg_gym.options import Options, repeated, specs
from medseg_gym.parallel.options import WorkerOptions

_FORMS = ("nifti", "seg", "png")
BY = ("modality", "group", "target")

CALL_COSTS = (0.005, 0.01, 0.03)
"""Prices of a call that tables of stopping show; the default reward takes 0.01."""


@dataclass(frozen=True, kw_only=True)
class MaskOptions(Options):
    """Files that are written of the mask of a volume."""

    topic: ClassVar[str] = "Masks"

    save: tuple[str, ...] = ("nifti",)
    """Forms of the mask, comma between: nifti, seg (DICOM SEG, for DICOM scans), png (slices)."""

    keep_identifiers: bool = False
    """Copy what the images say about patient, study and scanner into a DICOM SEG. The groups of
    cases tell PatientIDs with dicom:PATH?keep_identifiers=1 alone.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        wrong = [one for one in self.save if one not in _FORMS]
        if wrong or not self.save:
            given = wrong[0] if wrong else ""
            near = nearest(given, _FORMS)
            raise MedSegError(f"save must be of {', '.join(_FORMS)}, got {given!r}{near}")


@dataclass(frozen=True, kw_only=True)
class ImageOptions(Options):
    """The image to be segmented, and how it is decoded."""

    topic: ClassVar[str] = "Image"

    target: str
    """The structure to segment, in words."""

    modality: str = ""
    """CT, MRI, ...; some policies are told."""

    window: str | None = None
    """Intensities shown black and white, for images of more than 8 bits: LOW,HIGH, percentiles, or
    a preset for CT (soft, lung, bone, ...); a DICOM file may have its own.
    """

    mask_channel: str = "auto"
    """Channel of the truth's file that is the mask, where it does not say so itself: auto, alpha,
    colour or index.
    """

    orientation: str = "shown"
    """shown turns image and truth as EXIF says that they are shown, stored leaves them as they are
    stored.
    """


@dataclass(frozen=True, kw_only=True)
class ScanOptions(ImageOptions, MaskOptions):
    """A scan: which part of its files, and how it is cut."""

    topic: ClassVar[str] = "Scans"

    axis: Literal["auto", "axial", "coronal", "sagittal"] = "auto"
    """Direction in which a scan is cut; auto is the one in which its slices lie furthest apart."""

    channel: int | None = None
    """Volume along a fourth axis, where a file has several."""

    series: str = ""
    """SeriesInstanceUID, where a DICOM folder holds several series."""

    label: str = ""
    """The target in the truth: value in a label file (left out takes all that are not 0), name of
    the segment or region in DICOM (left out is the target).
    """

    resample: Literal["off", "nearest"] = "off"
    """nearest carries a truth on another grid over to the scan's; off refuses it."""


@dataclass(frozen=True, kw_only=True)
class VolumeStepOptions(Options):
    """Policies that play a whole volume in an episode, as oracle-key-slice does."""

    topic: ClassVar[str] = "Whole volumes"

    volume_steps: int = 10
    """Actions of such a policy on a volume, propagations included; --max-steps counts for policies
    that play images or slices.
    """


@dataclass(frozen=True, kw_only=True)
class RunOptions(PromptOptions, RewardOptions, SegmenterOptions, ScanOptions, VolumeStepOptions):
    """Options of `medseg run`."""

    topic: ClassVar[str] = "Policy"

    policy: str
    """Folder of a language model, openai:MODEL, sb3:RUN, rllib:RUN, or the name of a baseline; with
    a mask also of an expert.
    """

    seed: int = 0
    """Of the policy."""

    side: int = 512
    """Longer edge of the images of the steps, in pixels."""


@dataclass(frozen=True, kw_only=True)
class PlayingOptions(
    WorkerOptions, PromptOptions, RewardOptions, CaseOptions, MaskOptions, VolumeStepOptions
):
    """Playing the cases of a split."""

    topic: ClassVar[str] = "Playing"

    save_masks: bool = False
    """Write the final masks under masks/: of volumes in the forms of --save, of images as PNG; with
    a protocol the prediction of every iteration, and the clicks.
    """

    limit: int | None = None
    """First so many cases, or volumes where a policy plays whole ones (and all of their slices
    where others play slices); left out plays all.
    """

    num_envs: int = 8
    """Cases played at once by a worker; it decides what is in a batch."""

    volume_envs: int = 4
    """The same of policies that play whole volumes."""

    call_costs: tuple[float, ...] = CALL_COSTS
    """Prices of a call, in Dice, at which the table of stopping shows what a policy returns, and
    what it would return with the best limit on calls and with the best stops.
    """

    filmstrips: int = 0
    """Episodes of every policy that are played again and drawn step by step: evenly spread from the
    best final Dice to the worst. Images and slices alone.
    """

    max_failures: int = MAX_FAILURES
    """End the run of a policy at so many failed cases of this call (a model's server that stays
    away or refuses a conversation fails a case); the same command plays them again.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_envs", "volume_envs", "max_steps", "volume_steps", "max_failures"):
            if getattr(self, name) < 1:
                raise MedSegError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.filmstrips < 0:
            raise MedSegError(f"filmstrips must be at least 0, got {self.filmstrips}")
        for cost in self.call_costs:
            if not 0 <= cost < 1:
                raise MedSegError(f"call_costs must be at least 0 and below 1, got {cost}")


@dataclass(frozen=True, kw_only=True)
class EvalOptions(PlayingOptions, SegmenterOptions, ProtocolOptions):
    """Options of `medseg eval`."""

    topic: ClassVar[str] = "Policy"

    policy: str = "centre-box"
    """Folder of a language model, openai:MODEL, sb3:RUN, rllib:RUN, or the name of an expert or
    baseline.
    """

    seed: int = 0
    """Of the policy."""

    device: str = "auto"
    """auto, cpu, cuda, ...; with auto and several GPUs, worker i takes GPU i."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions(PlayingOptions, DeviceOptions):
    """Options of `medseg compare`."""

    topic: ClassVar[str] = "Comparison"

    policies: tuple[str, ...] = specs(
        "medseg_agents.policies:split",
        *("random", "stop", "centre-box", "oracle-box", "oracle-click"),
    )
    """Policy specs, comma between: oracle-box?loosen=0.2, sb3:RUN, rllib:RUN, llm:PATH,
    openai:MODEL, ...
    """

    backbones: tuple[str, ...] = specs(
        "medseg_gym.backbones:split", "pocket", "lite_medsam", "ellipse"
    )
    """Names, as in `medseg backbones list`."""

    checkpoint: tuple[str, ...] = repeated()
    """Weight file of a backbone, as BACKBONE=FILE; may be repeated."""

    device: str = "auto"
    """Of the backbones: auto, cpu, cuda, ...; with auto and several GPUs, worker i takes GPU i."""

    num_envs: int = 16
    """Slots of the vector environment."""

    seeds: tuple[int, ...] = (0,)
    """Of the policies; each plays every case once per seed."""

    limit: int | None = None
    """First so many cases, or volumes where a policy plays whole ones; left out takes 200 of a
    source of over 1000.
    """

    min_area: float = 0.0
    """Leave out targets below this share of the image, e.g. 0.003."""

    by: str = "modality"
    """Rows per modality, group or target."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.by not in BY:
            near = nearest(self.by, BY)
            raise MedSegError(f"by must be modality, group or target, got {self.by!r}{near}")
        for name in ("policies", "backbones", "seeds"):
            if not getattr(self, name):
                raise MedSegError(f"{name} must name at least one")
        for text in self.checkpoint:
            if "=" not in text:
                raise MedSegError(f"checkpoint must be BACKBONE=FILE, got {text!r}")

    @property
    def checkpoints(self) -> dict[str, str]:
        """Weight file by backbone."""
        pairs = (text.partition("=") for text in self.checkpoint)
        return {backbone: file for backbone, _, file in pairs}

    @property
    def title(self) -> str:
        """Of tables and plots."""
        area = f", area >= {self.min_area:.1%}" if self.min_area else ""
        reward = f", reward {self.reward}" if self.reward != CompareOptions.reward else ""
        return f"{self.cases}, {self.split} split{area}{reward}"
