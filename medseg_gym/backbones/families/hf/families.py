"""Families of promptable segmenters in transformers, and the checkpoint that a spec names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medseg_gym.errors import BackboneError, CheckpointError


@dataclass(frozen=True)
class Family:
    """One architecture.

    Args:
        model: Class in transformers.
        padded: True where images keep their shape and are padded to a square, False where they are
            squashed to it.
        words: True where the model finds things by words and boxes, False where it takes boxes and
            clicks.
    """

    model: str
    padded: bool
    words: bool = False


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "sam": Family("SamModel", padded=True),
        "sam_hq": Family("SamHQModel", padded=True),
        "sam2": Family("Sam2Model", padded=False),
        "sam2_video": Family("Sam2Model", padded=False),
        "edgetam": Family("EdgeTamModel", padded=False),
        "sam3_tracker": Family("Sam3TrackerModel", padded=False),
        "sam3": Family("Sam3Model", padded=False, words=True),
        "sam3_video": Family("Sam3TrackerModel", padded=False),
    }
)
"""By `model_type`. Published checkpoints say "sam2_video" and "sam3_video" and hold the models of
images too: SAM 3 its tracker, and its detector, which finds things by words."""


def place_of(name: str) -> str:
    """Return a folder's path, or the id where there is no such folder."""
    folder = Path(name).expanduser()
    return str(folder) if folder.is_dir() else name


def read_config(name: str, download: bool) -> dict[str, Any]:
    """Read the configuration of a checkpoint.

    Args:
        name: A folder, or an id on the Hugging Face hub.
        download: Ask the hub for what is not in the local cache.

    Raises:
        CheckpointError: There is no such checkpoint here; the message says how to get it.
    """
    from transformers import PretrainedConfig

    place = place_of(name)
    if Path(place).is_dir() and not (Path(place) / "config.json").is_file():
        raise CheckpointError(
            f"{name} has no config.json: it is no checkpoint as transformers saves one "
            "(save_pretrained of model and processor)"
        )
    try:
        config, _ = PretrainedConfig.get_config_dict(place, local_files_only=not download)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{name} is neither a folder with a checkpoint nor in the local Hugging Face cache; "
            f"get it with 'hf download {name}', or let it be downloaded with hf:{name}?download=1. "
            "Weights of SAM 3 are gated: accept their terms on the hub, then 'hf auth login'. "
            f"({str(error).splitlines()[0][:160]})"
        ) from error
    return config


def family_of(name: str, config: Mapping[str, Any], words: bool = False) -> Family:
    """Return the family of a configuration.

    Args:
        name: Of the checkpoint.
        config: Its configuration.
        words: Choose the model that finds things by words.

    Raises:
        BackboneError: Another kind of model, or one that knows no words.
    """
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        raise BackboneError(
            f"hf:{name} is a model of the type {kind!r}; promptable segmenters of these types can "
            f"be used: {', '.join(FAMILIES)}"
        )
    if words and kind not in ("sam3", "sam3_video"):
        raise BackboneError(f"hf:{name} is a model of the type {kind!r}, which reads no words")
    return FAMILIES["sam3" if words else kind]
