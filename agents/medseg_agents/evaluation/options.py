"""Options of `medseg run` and `medseg eval`."""

from __future__ import annotations

from dataclasses import dataclass

from medseg_agents.evaluation.failed_cases import MAX_FAILURES
from medseg_gym.errors import MedSegError


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of segmenting one image.

    Args:
        target: What to segment, in words.
        policy: Folder of a language model, openai:MODEL, sb3:RUN, rllib:RUN, or the name of a
            baseline; with a mask also of an expert.
        backbone: Who segments.
        checkpoint: Weight file of the backbone; left out takes its official one where it is found.
        device: auto, cpu, cuda, ...
        modality: CT, MRI, ...; some policies are told.
        window: Intensities shown black and white, for images of more than 8 bits: LOW,HIGH,
            percentiles, or a preset for CT (soft, lung, bone, ...); a DICOM file may have its own.
        mask_channel: Which channel of the truth's file is the mask, where it does not say so
            itself: auto, alpha, colour or index.
        orientation: shown turns image and truth as EXIF says that they are shown, stored leaves
            them as they are stored.
        max_steps: Actions at most.
        seed: Of the policy.
        side: Longer edge of the step images, in pixels.
    """

    target: str
    policy: str
    backbone: str = "pocket"
    checkpoint: str | None = None
    device: str = "auto"
    modality: str = ""
    window: str | None = None
    mask_channel: str = "auto"
    orientation: str = "shown"
    max_steps: int = 5
    seed: int = 0
    side: int = 512


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Options of an evaluation.

    Args:
        cases: Case spec: samples, phantoms, biomedparse:PATH, parquet:PATH, nifti:PATH, ...
        split: train, val or test.
        policy: Folder of a language model, openai:MODEL, sb3:RUN, rllib:RUN, or the name of an
            expert or baseline.
        backbone: Who segments.
        checkpoint: Weight file of the backbone; left out takes its official one where it is found.
        device: auto, cpu, cuda, ...; with auto and several GPUs, worker i takes GPU i.
        num_envs: Cases played at once by a worker; it decides what is in a batch.
        workers: Processes.
        threads: torch threads of each worker; part of the settings, for sums depend on it.
        limit: First so many cases; left out plays all.
        seed: Of the policy.
        max_steps: Actions per episode.
        max_failures: End the run at so many failed cases of this call (a model's server that stays
            away or refuses a conversation fails a case); the same command plays them again.
    """

    cases: str = "samples"
    split: str = "test"
    policy: str = "centre-box"
    backbone: str = "pocket"
    checkpoint: str | None = None
    device: str = "auto"
    num_envs: int = 8
    workers: int = 1
    threads: int = 1
    limit: int | None = None
    seed: int = 0
    max_steps: int = 5
    max_failures: int = MAX_FAILURES

    def __post_init__(self) -> None:
        for name in ("num_envs", "workers", "threads", "max_steps", "max_failures"):
            if getattr(self, name) < 1:
                raise MedSegError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.limit is not None and self.limit < 1:
            raise MedSegError(f"limit must be at least 1, got {self.limit}")
