"""The folder of a training run: its settings, its view, its log and its checkpoints."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medseg_gym.storage.atomic_write import atomic_folder, atomic_write
from medseg_gym.errors import MedSegError, PolicyError
from medseg_gym.options import Options

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
            kind, kept = type(config), read_json(file)
            old = kind.from_mapping(kept) if isinstance(config, Options) else kind.read(kept)
            before, now = asdict(old), asdict(config)
            differing = sorted(k for k in now if k not in free and before[k] != now[k])
            if differing:
                raise MedSegError(
                    f"{self.path} holds a run with another {', '.join(differing)}; resume it with "
                    "the same settings, or give another --out"
                )
        elif resume:
            raise MedSegError(f"{self.path} holds no run to resume (no config.json)")
        atomic_write(file, config.to_json())
        seen = {"env_id": env_id, "view": view}
        atomic_write(self.path / "view.json", json.dumps(seen, indent=1))

    def save(self, step: int, write: Callable[[Path], object]) -> Path:
        """Keep a checkpoint.

        Args:
            step: Environment steps taken.
            write: Called with an empty folder to write into.

        Returns:
            The checkpoint's folder.

        Raises:
            MedSegError: The disk refuses; the checkpoints before are as they were.
        """
        final = self.path / "checkpoints" / f"step-{step:09d}"
        with atomic_folder(final) as part:
            write(part)
            shutil.copy(self.path / "view.json", part / "view.json")
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
    seen = read_json(file, PolicyError)
    if not isinstance(seen.get("env_id"), str) or not isinstance(seen.get("view"), dict):
        raise PolicyError(f"{file}: must hold env_id and view{previous_checkpoint(folder)}")
    return folder, seen


def previous_checkpoint(path: Path) -> str:
    """What an error about a file of a checkpoint says of the checkpoint before it.

    Args:
        path: Of the checkpoint, or of something in it.

    Returns:
        A clause for the end of the error; "" where there is none before it.
    """
    folder = next((p for p in (path, *path.parents) if _STEP.fullmatch(p.name)), path)
    found = (p for p in folder.parent.glob("step-*") if _STEP.fullmatch(p.name))
    earlier = sorted(p for p in found if p.name < folder.name)
    if not earlier:
        return ""
    return f"; the checkpoint before it is {earlier[-1]}: move {folder.name} away to go on from it"


def read_json(path: Path, error: type[MedSegError] = MedSegError) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: Of the file.
        error: What a failure is raised as.

    Raises:
        MedSegError: As `error`: the file is missing, damaged, or something else.
    """
    hint = previous_checkpoint(path)
    try:
        found = json.loads(path.read_bytes())
    except OSError as cause:
        raise error(f"{path} cannot be read: {cause.strerror}{hint}") from cause
    except ValueError as cause:
        raise error(f"{path} is damaged: {cause}{hint}") from cause
    if not isinstance(found, dict):
        raise error(f"{path} is damaged: a JSON object was expected{hint}")
    return found
