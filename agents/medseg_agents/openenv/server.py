"""The server: OpenEnv's own application over one segmenter."""

from __future__ import annotations

from functools import partial
from typing import Any

from openenv.core.env_server import create_app

from medseg_agents.chat_episodes import worker_of
from medseg_agents.openenv.environment import MedSegEnvironment
from medseg_agents.openenv.messages import MedSegAction, MedSegObservation, MedSegState
from medseg_gym.errors import PolicyError


def make_app(sessions: int = 64, split: str = "auto", **options: Any) -> Any:
    """Make the application.

    Args:
        sessions: Most sessions at a time.
        split: Of the cases; also the name under which they are listed as tasks.
        **options: Those of the environment, see `ChatOptions`, and `env_id`, `max_batch` and
            `max_delay_ms` of `EpisodeWorker`.

    Returns:
        A FastAPI application.

    Raises:
        MedSegError: An option, case source or backbone that cannot be used.
    """
    if sessions < 1:
        raise PolicyError(f"sessions must be at least 1, got {sessions}")
    worker = worker_of({**options, "split": split})
    return create_app(
        partial(MedSegEnvironment, worker, split),
        MedSegAction,
        MedSegObservation,
        env_name="medseg-chat",
        max_concurrent_envs=sessions,
        state_cls=MedSegState,
    )
