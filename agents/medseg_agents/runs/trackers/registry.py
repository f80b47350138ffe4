"""Trackers by spec: `--log-to tensorboard,wandb?project=liver`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from medseg_agents.runs.trackers.protocol import Tracker
from medseg_gym.errors import MedSegError
from medseg_gym.registry import Factory, Registry, split_specs

TRACKERS: Registry[Tracker] = Registry(
    "tracker",
    "medseg_gym.trackers",
    "factory(folder, step, **options)",
    {
        "tensorboard": "medseg_agents.runs.trackers.tensorboard:TensorBoardTracker",
        "wandb": "medseg_agents.runs.trackers.wandb:WandbTracker",
        "mlflow": "medseg_agents.runs.trackers.mlflow:MLflowTracker",
    },
)
"""Kinds of trackers; the package of each is imported when it is asked for."""


def names() -> tuple[str, ...]:
    """Kinds that can be named."""
    return TRACKERS.names()


def register(kind: str, factory: str | Factory[Tracker]) -> None:
    """Add a kind; see `Registry.register`."""
    TRACKERS.register(kind, factory)


def split(text: str) -> list[str]:
    """Split a list of specs with commas between them."""
    return split_specs(text, TRACKERS.begins_spec)


def make_trackers(specs: Sequence[str], folder: Path, step: int) -> list[Tracker]:
    """Make the trackers of a run.

    Args:
        specs: One per tracker.
        folder: Of the run.
        step: That it goes on from.

    Raises:
        MedSegError: An unknown kind, one that is named twice, or a package that is missing (with
            the line that installs it).
    """
    specs = [spec for spec in specs if spec]  # `--log-to ""` is none
    kinds = [TRACKERS.parse(spec).kind for spec in specs]
    twice = sorted({kind for kind in kinds if kinds.count(kind) > 1})
    if twice:
        raise MedSegError(f"log_to names the tracker {twice[0]!r} twice")
    trackers: list[Tracker] = []
    with ExitStack() as stack:
        for spec in specs:
            trackers.append(TRACKERS.make(spec, folder, step))
            stack.callback(trackers[-1].close, True)
        stack.pop_all()
    return trackers
