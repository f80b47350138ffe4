"""Length of a run, and training beyond its end."""

from __future__ import annotations

from typing import Any

from medseg_agents.runs.folder import RunFolder
from medseg_gym.errors import MedSegError


def check_length(config: Any, run: RunFolder, resume: bool) -> None:
    """Refuse another length of a run whose learning rate already followed its first length.

    Args:
        config: Options that are given now, with `iterations` and `extend`.
        run: Its folder.
        resume: Whether the run in the folder goes on.

    Raises:
        MedSegError: `iterations` is another than before, or `extend` is given to a new run.
    """
    if not resume:
        if config.extend:
            raise MedSegError(
                "--extend goes on after the end of a run: give it with --resume; a new run takes a "
                f"larger --iterations than {config.iterations}"
            )
        return
    if not run.config_file.exists():
        return
    before = run.read_config(type(config)).iterations
    if before != config.iterations:
        raise MedSegError(
            f"{run.path} is a run of {before} iterations, and its learning rate followed a "
            f"schedule of that length: keep --iterations {before}, and give --extend "
            f"{max(1, config.iterations - before)} to go on after them at the rate of the "
            "schedule's end"
        )
