"""Going on with a run: its own settings, what may differ from them, and how far it goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg_agents.runs.options import ExtendOptions
from medseg_gym.errors import MedSegError
from medseg_gym.options import Options

LENGTHS = ("iterations", "steps", "epochs")
"""Settings that say how long a run is; the first that a run has is the one."""


def free_settings(kind: type[Options]) -> frozenset[str]:
    """Return the settings in which a resumed run may differ, because they change nothing learned.

    They are those that the class of the settings and its bases name as `free`: how much further it
    goes, evaluation, checkpoints, logging, machines.

    Args:
        kind: Class of the settings.
    """
    return frozenset(name for one in kind.__mro__ for name in vars(one).get("free", ()))


def check_settings(before: Options, now: Options, run: Path, error: type[MedSegError]) -> None:
    """Refuse settings that contradict those that a run was begun with.

    Args:
        before: Those of `config.json`.
        now: Those that are given, of the same class.
        run: Its folder, for the error.
        error: What is raised.

    Raises:
        MedSegError: As `error`; it names every setting with both values, and the way out.
    """
    was, is_now, free = before.to_mapping(), now.to_mapping(), free_settings(type(now))
    differing = [name for name in is_now if name not in free and was[name] != is_now[name]]
    if not differing:
        return
    differences = ", ".join(f"{_flag(name)} {was[name]} (not {is_now[name]})" for name in differing)
    message = (
        f"{run} was begun with other settings: {differences}. Resume it without "
        f"{', '.join(map(_flag, differing))}, or give another --out"
    )
    length = _length(now)
    if length in differing:
        longer = [one[length] if isinstance(one[length], int) else 0 for one in (was, is_now)]
        extension = longer[1] - longer[0] if 0 < longer[0] < longer[1] else "N"
        message += (
            f". Its schedules follow {_flag(length)}: give --extend {extension} to go on after its "
            "end"
        )
    raise error(message)


def check_extension(config: Any, resume: bool, error: type[MedSegError]) -> None:
    """Refuse an extension of a new run, and one along which nothing would be learned.

    Args:
        config: Settings as they are given, of any trainer.
        resume: Whether a run goes on.
        error: What is raised.

    Raises:
        MedSegError: As `error`.
    """
    if not isinstance(config, ExtendOptions):  # no run of a trainer
        return
    extend = config.extend
    if extend < 0:
        raise error(f"extend must be at least 0, got {extend}")
    if extend and not resume:
        raise error(
            "--extend goes on after the end of a run: give it with --resume; a new run takes a "
            f"larger {_flag(_length(config))}"
        )
    schedule = getattr(config, "schedule", "constant")
    falls = config.one_schedule and schedule != "constant"
    if extend and falls and not getattr(config, "final_rate", 0.0):
        if config.extend_schedule == "hold":
            raise error(
                f"the schedule {schedule!r} has brought the learning rate to 0 at the end "
                "of the run, where --extend-schedule hold keeps it: give --extend-schedule stretch"
            )


def _length(config: Any) -> str:
    """Name of the setting that says how long a run is."""
    return next(name for name in LENGTHS if getattr(config, name, None) is not None)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
