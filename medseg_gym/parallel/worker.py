"""A worker's side: it makes its player once, and plays job after job."""

from __future__ import annotations

import pickle
import platform
import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from medseg_gym.errors import MedSegError
from medseg_gym.own_code import OwnCodeError, explain_own


class Player(Protocol):
    """Plays jobs; made by every worker for itself, cheaply: what is dear is loaded by a job."""

    def play(self, job: Any) -> Any:
        """Play a job, as if nothing had been played before; the result can be pickled."""
        ...

    @property
    def usage(self) -> Mapping[str, float]:
        """Requests to servers so far, by name."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def add_usage(total: dict[str, float], usage: Mapping[str, float]) -> None:
    """Add what a player asked of servers to a sum."""
    for name, value in usage.items():
        total[name] = total.get(name, 0) + value


Make = Callable[[int], Player]
"""Makes the player of the worker with a number. It is pickled."""

Answer = tuple[str, Any, Mapping[str, float]]
"""("result", what `play` returned, usage so far), or ("error", an exception, {})."""


class Worker:
    """A player in a process of its own.

    Args:
        make: Of the player.
        number: Of the worker, from 0.
        threads: Of torch.
    """

    def __init__(self, make: Make, number: int, threads: int) -> None:
        self._make, self._number, self._threads = make, number, threads
        self._player: Player | None = None

    def play(self, job: Any) -> Answer:
        """Play a job; an exception comes back as an answer, with what it was about."""
        try:
            if self._player is None:
                self._player = self._make(self._number)
                if "torch" in sys.modules:  # which takes seconds to import
                    sys.modules["torch"].set_num_threads(self._threads)
            result = self._player.play(job)
            return "result", result, dict(self._player.usage)
        except Exception as error:
            return "error", _sendable(error, job), {}

    def close(self) -> None:
        """Close the player."""
        if self._player is not None:
            self._player.close()


def _sendable(error: Exception, job: Any) -> Exception:
    """An error that a user can act on as it is; others as one that says where they happened.

    A traceback cannot be sent, so the part of it that is the user's own becomes text.
    """
    if not isinstance(error, MedSegError) and (explained := explain_own(error)):
        return OwnCodeError(f"{explained}\n  in a worker on {platform.node()}, on {job}")
    if not isinstance(error, (MedSegError, ModuleNotFoundError, OSError)):
        where = f"a worker on {platform.node()} failed on {job}"
        return MedSegError(f"{where}: {type(error).__name__}: {error}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # it takes arguments of its own
        return MedSegError(str(error))
    return error
