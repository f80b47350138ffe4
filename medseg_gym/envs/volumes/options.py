"""Every argument of the volume environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.cases.volume_source import VolumeSource
from medseg_gym.envs.options import EnvOptions
from medseg_gym.episodes.volumes.propagation import PropagationOptions
from medseg_gym.prompts.volumes import VOLUME_TOOLS


@dataclass(frozen=True, kw_only=True)
class VolumeOptions(EnvOptions):
    """Arguments of `gym.make("MedSegVolume-v0", ...)` and `gym.make_vec("MedSegVolume-v0", ...)`.

    They are those of `MedSeg-v0` where nothing else is said.
    """

    noun: ClassVar[str] = "MedSegVolume"
    refused: ClassVar[Mapping[str, str]] = {
        "prompt_memory": "every slice keeps all its prompts",
        "text_start": "volumes begin with no mask; play their slices, with MedSeg-v0",
    }

    cases: str | VolumeSource | Sequence[VolumeCase] = "phantoms-volume"  # type: ignore[assignment]
    """Volumes: a spec for `load_volumes`, a VolumeSource or a sequence of VolumeCases."""

    max_steps: int = 10
    """Actions per episode, looks and propagations included; running out of them terminates it."""

    slices: int = 64
    """Cells of the action along the volume; a volume of as many slices has one each."""

    overview_size: int = 64
    """Side O of the overview's squares, in pixels."""

    tools: Sequence[str] = VOLUME_TOOLS
    """Subset of `VOLUME_TOOLS` that the agent may use; "auto" takes those that the backbone can
    answer."""

    spill_bytes: int = 8 << 30
    """Room in the system's temporary folder for embeddings of slices that memory has none for
    (`backbone_options={"cache_bytes": ...}`, 2 GiB by default); 0 encodes those slices again. A
    `store` among the backbone's options takes its place."""

    propagation: PropagationOptions = field(default_factory=PropagationOptions)
    """Rule that carries masks from slice to slice, and ends that."""
