"""What is kept: episodes recorded step by step, replayed, re-scored, shown and exported.

`Recorder` and `VectorRecorder` write every step of an environment into a store on disk,
`TrajectoryStore` reads it back, and `generate_episodes` fills one with a policy's episodes.
docs/trajectories.md describes the format. Needs the extra "trajectories" (pyarrow).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medseg_gym.trajectories.errors import TrajectoryError

if TYPE_CHECKING:
    from medseg_gym.trajectories.export.export import export_store
    from medseg_gym.trajectories.options import GenerateOptions
    from medseg_gym.trajectories.recording.generate import generate_episodes
    from medseg_gym.trajectories.recording.recorder import Recorder, VectorRecorder
    from medseg_gym.trajectories.replaying.rebuild import StoredCases, rebuild_episode
    from medseg_gym.trajectories.replaying.replay import Replayed, replay_store
    from medseg_gym.trajectories.replaying.rescore import Rescored, rescore_store
    from medseg_gym.trajectories.store.reader import TrajectoryStore
    from medseg_gym.trajectories.store.writer import TrajectoryWriter
    from medseg_gym.trajectories.trajectory import (
        EpisodeFacts,
        EpisodeKey,
        RecordedStep,
        Trajectory,
    )

# Reading a store needs no torch and the command line must start without pyarrow: import late.
_WHERE = {
    "EpisodeFacts": "trajectory",
    "EpisodeKey": "trajectory",
    "GenerateOptions": "options",
    "RecordedStep": "trajectory",
    "Recorder": "recording.recorder",
    "Replayed": "replaying.replay",
    "Rescored": "replaying.rescore",
    "StoredCases": "replaying.rebuild",
    "Trajectory": "trajectory",
    "TrajectoryStore": "store.reader",
    "TrajectoryWriter": "store.writer",
    "VectorRecorder": "recording.recorder",
    "export_store": "export.export",
    "generate_episodes": "recording.generate",
    "rebuild_episode": "replaying.rebuild",
    "replay_store": "replaying.replay",
    "rescore_store": "replaying.rescore",
}

__all__ = [
    "EpisodeFacts",
    "EpisodeKey",
    "GenerateOptions",
    "RecordedStep",
    "Recorder",
    "Replayed",
    "Rescored",
    "StoredCases",
    "Trajectory",
    "TrajectoryError",
    "TrajectoryStore",
    "TrajectoryWriter",
    "VectorRecorder",
    "export_store",
    "generate_episodes",
    "rebuild_episode",
    "replay_store",
    "rescore_store",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
