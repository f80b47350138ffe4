"""Checkpoints of supervised runs: which are whole, and which is the newest."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

from medseg_agents.sft.config import SftError

WHOLE = "whole"
"""Name of the file that marks a checkpoint as written to its end."""


def check_checkpoint(folder: Path) -> None:
    """Refuse a checkpoint with a damaged file before transformers fails on it.

    Args:
        folder: Of the checkpoint.

    Raises:
        SftError: It names the file, and the checkpoint before this one.
    """
    others = sorted(p.name for p in folder.parent.glob("checkpoint-*") if p != folder)
    way_out = f"; remove {folder} to go on from {others[-1]}" if others else f"; remove {folder}"
    for file in sorted(folder.iterdir()):
        try:
            if file.suffix == ".json":
                json.loads(file.read_bytes())
            elif file.suffix == ".safetensors":
                with safe_open(file, "pt") as opened:
                    opened.keys()
            elif file.suffix in (".pt", ".pth"):
                with zipfile.ZipFile(file) as archive:
                    if damaged := archive.testzip():
                        raise ValueError(f"{damaged} has another checksum")
        except (OSError, ValueError, SafetensorError, zipfile.BadZipFile) as error:
            raise SftError(f"{file} is damaged: {error}{way_out}") from error
    if not (folder / "trainer_state.json").exists():
        raise SftError(f"{folder / 'trainer_state.json'} is missing{way_out}")


def step_of(folder: Path) -> int:
    """Return the optimiser steps taken before a checkpoint.

    Args:
        folder: Of the checkpoint.
    """
    return int(folder.name.rpartition("-")[2])


def newest_checkpoint(checkpoints: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end; remove torn ones.

    Args:
        checkpoints: Folder that holds them.
    """
    newest: tuple[int, Path] | None = None
    for folder in checkpoints.glob("checkpoint-*"):
        if not (folder / WHOLE).exists():
            shutil.rmtree(folder)
            continue
        step = step_of(folder)
        if newest is None or step > newest[0]:
            newest = step, folder
    return newest[1] if newest else None
