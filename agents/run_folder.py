"""The folder of a training run: its settings, its view, its log and its checkpoints."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medseg_gym.errors import MedSegError, PolicyError

_STEP = re.compile(r"step-(\d{9})")
_FREE = ("steps", "eval_every", "eval_cases", "checkpoint_every", "test_cases")


class RunFolder:
    """`config.json`, `view.json`, `progress.jsonl`, `progress.csv`, `tensorboard/`, `checkpoints/`.

    A checkpoint is a folder `checkpoints/step-000123456` that appears whole or not at all, so that
    a run killed at any moment goes on from the newest one.

    Args:
        path: Of the run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def start(
        self,
        config: Any,
        view: dict[str, Any],
        resume: bool,
        env_id: str = "MedSeg-v0",
        free: Sequence[str] = _FREE,
    ) -> None:
        """Claim the folder for a run.

        Args:
            config: Its settings, a dataclass with `to_json` and `read` (see `PPOSettings`).
            view: Arguments of the environment that belong to the view.
            resume: Go on with what is there.
            env_id: Of the environment.
            free: Settings in which a resumed run may differ: its length, where it may go on for
                longer, and what does not touch learning (evaluation, checkpoints, machines).

        Raises:
            MedSegError: The folder holds a run and `resume` is False, or another run.
        """
        file = self.path / "config.json"
        if file.exists():
            if not resume:
                raise MedSegError(f"{self.path} holds a run; give another --out, or --resume")
            old = type(config).read(json.loads(file.read_text()))
            before, now = asdict(old), asdict(config)
            differing = sorted(k for k in now if k not in free and before[k] != now[k])
            if differing:
                raise MedSegError(
                    f"{self.path} holds a run with another {', '.join(differing)}; resume it with "
                    "the same settings, or give another --out"
                )
        elif resume:
            raise MedSegError(f"{self.path} holds no run to resume (no config.json)")
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(file, config.to_json())
        write_whole(self.path / "view.json", json.dumps({"env_id": env_id, "view": view}, indent=1))

    def save(self, step: int, write: Callable[[Path], object]) -> Path:
        """Keep a checkpoint.

        Args:
            step: Environment steps taken.
            write: Called with an empty folder to write into.

        Returns:
            The checkpoint's folder.
        """
        final = self.path / "checkpoints" / f"step-{step:09d}"
        part = final.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write(part)
        shutil.copy(self.path / "view.json", part / "view.json")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(part, final)
        return final

    def checkpoints(self) -> dict[int, Path]:
        """Folders of checkpoints by steps taken, oldest first."""
        found = {}
        for path in sorted((self.path / "checkpoints").glob("step-*")):
            match = _STEP.fullmatch(path.name)
            if match:
                found[int(match[1])] = path
        return found

    def prune(self, keep: int) -> None:
        """Remove all checkpoints but the `keep` newest."""
        for path in list(self.checkpoints().values())[:-keep]:
            shutil.rmtree(path)

    def newest(self) -> tuple[int, Path] | None:
        """Steps and folder of the newest checkpoint, or None."""
        found = self.checkpoints()
        return max(found.items()) if found else None


def find_checkpoint(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """The checkpoint that a path means, and its view.

    Args:
        path: Of a run, whose newest checkpoint counts, or of a checkpoint.

    Returns:
        The checkpoint's folder, and `{"env_id": ..., "view": {...}}`.

    Raises:
        PolicyError: There is no checkpoint.
    """
    path = Path(path)
    newest = RunFolder(path).newest()
    folder = path if newest is None else newest[1]
    file = folder / "view.json"
    if not file.is_file() or not _STEP.fullmatch(folder.name):
        raise PolicyError(
            f"{path} is neither a run nor a checkpoint of one: it has no checkpoints/step-... "
            "(`medseg train` makes them)"
        )
    return folder, json.loads(file.read_text())


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it is there whole or not at all."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(text)
    os.replace(beside, path)
