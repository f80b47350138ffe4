"""The folder of a run: its options, its view, its log and its checkpoints."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from medseg_agents.runs.resuming import check_extension, check_settings
from medseg_gym.errors import MedSegError, PolicyError
from medseg_gym.options import Options
from medseg_gym.storage.atomic_write import atomic_folder, atomic_write

O = TypeVar("O", bound=Options)  # noqa: E741

_STEP = re.compile(r"step-(\d{9})")


class RunFolder:
    """A run on disk, of every kind: `config.json`, logs, checkpoints and what it made.

    - `config.json`: the options, with the class of them as "algorithm";
    - `view.json`: the view of the environment, of runs that train on one;
    - `progress.jsonl`, `progress.csv`, `tensorboard/`: see `RunLog`;
    - `checkpoints/step-000123456/`: each appears whole or not at all, so that a run killed at any
      moment goes on from the newest one (supervised runs: `checkpoint-N` of TRL's trainer);
    - `model/`: the finished model of a run that trains a language model;
    - `records.jsonl` and `records/`: the cases that an evaluation or a comparison played.

    Args:
        path: Of the run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def config_file(self) -> Path:
        """File of the options."""
        return self.path / "config.json"

    @property
    def checkpoint_folder(self) -> Path:
        """Folder that holds the checkpoints."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """Folder of the finished model, which plays as `llm:RUN/model`."""
        return self.path / "model"

    @property
    def records_file(self) -> Path:
        """File of the cases that an evaluation played."""
        return self.path / "records.jsonl"

    def start(
        self,
        config: Options,
        view: dict[str, Any] | None,
        resume: bool,
        env_id: str = "MedSeg-v0",
        error: type[MedSegError] = MedSegError,
    ) -> None:
        """Claim the folder for a run.

        Args:
            config: Its options.
            view: Arguments of the environment that belong to the view; None keeps no `view.json`.
            resume: Go on with what is there.
            env_id: Of the environment.
            error: Raised about the folder.

        Raises:
            MedSegError: The folder holds a run and `resume` is False, or another run; see
                `medseg_agents.runs.resuming` for what may differ.
        """
        self.check(config, resume, error)
        self.write_config(config, error)
        if view is not None:
            seen = {"env_id": env_id, "view": view}
            atomic_write(self.path / "view.json", json.dumps(seen, indent=1), error)

    def check(self, config: Options, resume: bool, error: type[MedSegError] = MedSegError) -> None:
        """Refuse what `start` refuses, and write nothing.

        Args:
            config: Options of the run.
            resume: Go on with what is there.
            error: Raised about the folder.
        """
        check_extension(config, resume, error)
        if self.config_file.exists():
            if not resume:
                raise error(f"{self.path} holds a run; give another --out, or --resume")
            check_settings(self.read_config(type(config), error), config, self.path, error)
        elif resume:
            raise error(f"{self.path} holds no run to resume (no config.json)")

    def write_config(self, config: Options, error: type[MedSegError] = MedSegError) -> None:
        """Keep the options of a run beside it.

        Args:
            config: The options.
            error: Raised when the disk refuses.

        Raises:
            MedSegError: As `error`; or see `refuse_other`.
        """
        self.refuse_other(config, error)
        atomic_write(self.config_file, config.to_json(), error)

    def refuse_other(self, config: Options, error: type[MedSegError] = MedSegError) -> None:
        """Refuse a folder whose `config.json` is not of the same kind, so that it is not lost.

        Args:
            config: Options of the run that is to be written there.
            error: Raised if it is of another command, or of another program.
        """
        if not self.config_file.is_file():
            return
        try:
            owner = read_json(self.config_file, error).get("algorithm")
        except MedSegError as problem:
            raise error(f"{problem}; give another --out") from None
        if owner != type(config).__name__:
            holds = f"a run of {owner}" if owner else "a config.json of another program"
            raise error(
                f"{self.path} holds {holds}, not of {type(config).__name__}; give another --out"
            )

    def read_config(self, kind: type[O], error: type[MedSegError] = MedSegError) -> O:
        """Return the options of the run.

        Args:
            kind: Class of the options.
            error: Raised when the file is missing or damaged.

        Raises:
            MedSegError: As `error`, or of the options: another algorithm, a field that is unknown.
        """
        return kind.from_mapping(read_json(self.config_file, error), str(self.config_file))

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
        final = self.checkpoint_folder / f"step-{step:09d}"
        with atomic_folder(final) as folder:
            write(folder)
            shutil.copy(self.path / "view.json", folder / "view.json")
        return final

    def checkpoints(self) -> dict[int, Path]:
        """Return the folders of checkpoints by steps taken, oldest first."""
        folders = {}
        for path in sorted(self.checkpoint_folder.glob("step-*")):
            match = _STEP.fullmatch(path.name)
            if match:
                folders[int(match[1])] = path
        return folders

    def prune(self, keep: int) -> None:
        """Remove all checkpoints but the `keep` newest."""
        for path in list(self.checkpoints().values())[:-keep]:
            shutil.rmtree(path)

    def newest(self) -> tuple[int, Path] | None:
        """Return steps and folder of the newest checkpoint, or None."""
        checkpoints = self.checkpoints()
        return max(checkpoints.items()) if checkpoints else None


def find_checkpoint(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """Return the checkpoint that a path means, and its view.

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
    """Return a hint at the checkpoint before a damaged one, for the end of an error.

    Args:
        path: Of the checkpoint, or of something in it.

    Returns:
        A clause for the end of the error; "" where there is none before it.
    """
    folder = next((p for p in (path, *path.parents) if _STEP.fullmatch(p.name)), path)
    siblings = (p for p in folder.parent.glob("step-*") if _STEP.fullmatch(p.name))
    earlier = sorted(p for p in siblings if p.name < folder.name)
    if not earlier:
        return ""
    return f"; the checkpoint before it is {earlier[-1]}: move {folder.name} away to go on from it"


def read_json(path: Path, error: type[MedSegError] = MedSegError) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: Of the file.
        error: Raised about it.

    Raises:
        MedSegError: As `error`: the file is missing, damaged, or something else.
    """
    hint = previous_checkpoint(path)
    try:
        values = json.loads(path.read_bytes())
    except OSError as cause:
        raise error(f"{path} cannot be read: {cause.strerror}{hint}") from cause
    except ValueError as cause:
        raise error(f"{path} is damaged: {cause}{hint}") from cause
    if not isinstance(values, dict):
        raise error(f"{path} is damaged: a JSON object was expected{hint}")
    return values
