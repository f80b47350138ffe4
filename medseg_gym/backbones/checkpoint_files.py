"""Places of official weight files of backbones; nothing is ever downloaded."""

from __future__ import annotations

import os
from pathlib import Path

from medseg_gym.backbones.spec import BackboneSpec
from medseg_gym.errors import BackboneError, CheckpointError
from medseg_gym.storage.cache_folder import cache_folder

CHECKPOINTS_VARIABLE = "MEDSEG_CHECKPOINTS"


def checkpoint_folders() -> list[Path]:
    """Return the folders that may hold official weight files, in order.

    The directories that `MEDSEG_CHECKPOINTS` names (as in PATH), then the user's cache directory.
    """
    named = [Path(p) for p in os.environ.get(CHECKPOINTS_VARIABLE, "").split(os.pathsep) if p]
    return [*(folder.expanduser() for folder in named), cache_folder("checkpoints")]


def find_checkpoint(
    spec: BackboneSpec, given: str | Path | None, random_weights: bool = False
) -> Path | None:
    """Look for the weight file; None where the backbone needs none.

    Raises:
        CheckpointError: The file is missing; the message says where to get it.
        BackboneError: Random weights and a file were asked for at once.
    """
    if random_weights and given is not None:
        raise BackboneError(
            f"backbone {spec.name!r}: random_weights=True and a checkpoint exclude each other"
        )
    if random_weights:
        return None
    if given is not None:
        path = Path(given).expanduser()
        if not path.is_file():
            raise CheckpointError(f"backbone {spec.name!r}: checkpoint {path} is not a file")
        return path
    if spec.checkpoint is None:
        return None
    folders = checkpoint_folders()
    for folder in folders:
        if (folder / spec.checkpoint).is_file():
            return folder / spec.checkpoint
    raise CheckpointError(
        f"backbone {spec.name!r} needs the weight file {spec.checkpoint}: get it from {spec.page} "
        f"and put it into {folders[-1]} or a directory that {CHECKPOINTS_VARIABLE} names "
        f"(looked in {', '.join(map(str, folders))}), or pass checkpoint=FILE"
    )
