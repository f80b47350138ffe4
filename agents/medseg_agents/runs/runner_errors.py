"""Errors of remote runners that a restart does not mend, told to the driver in the user's terms.

RLlib ends a runner whose call failed, starts another after a minute, and goes on without its
episodes. That is right for machines that die, and not for a reward of a user that has a mistake.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from medseg_gym.errors import BackboneError, MedSegError
from medseg_gym.own_code import OwnCodeError, chain, explain_own

_SECONDS = 30.0
"""A runner that is being started again cannot answer; it has nothing to tell either."""


class _NotOfUsers(logging.Filter):
    """Leaves out what RLlib logs of errors that the driver raises anyway, with their traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is shown."""
        error = record.exc_info[1] if record.exc_info else None
        told = isinstance(error, Exception) and _lasting(error) is not None
        return not told and "runner_errors.py" not in record.getMessage()


for _name in ("ray.rllib", "ray.rllib.utils.actor_manager", "ray._private.worker"):
    logging.getLogger(_name).addFilter(_NotOfUsers())


class TellsErrors:
    """Mix-in of env runners: keeps what a restart would not mend, and stays alive to tell it."""

    failure: MedSegError | None = None

    def apply(self, func: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a function with this runner, as RLlib's own `apply` does.

        Args:
            func: The function.
            *args: Its further arguments.
            **options: As well.
        """
        try:
            return func(self, *args, **options)
        except Exception as error:
            self.failure = _lasting(error)
            if self.failure is not None:
                raise self.failure from None
            return super().apply(_raise, error)  # type: ignore[misc]


def _lasting(error: Exception) -> MedSegError | None:
    """Return an error as the driver shall raise it; None where a restart may mend it."""
    for one in chain(error):
        if isinstance(one, MedSegError):
            # A segmenting service may be there again.
            return None if isinstance(one, BackboneError) else one
    explained = explain_own(error)
    return OwnCodeError(explained) if explained else None


def _raise(runner: Any, error: Exception) -> None:
    del runner
    raise error


def raise_failures(groups: Iterable[Any], at_the_end: bool = False) -> None:
    """Raise what a runner has kept, where one of a group has failed.

    Args:
        groups: RLlib's `EnvRunnerGroup`s of runners that are `TellsErrors`, or None.
        at_the_end: Ask runners that count as healthy too: RLlib looks at what was played beside
            training in the next iteration, and there is none.

    Raises:
        MedSegError: What went wrong there: `OwnCodeError` in a user's own code.
    """
    for group in groups:
        if group is None:
            continue
        healthy = group.num_healthy_remote_workers() == group.num_remote_workers()
        if healthy and not at_the_end:
            continue
        failures = group.foreach_env_runner(
            lambda runner: runner.failure,
            local_env_runner=False,
            healthy_only=False,
            timeout_seconds=_SECONDS,
        )
        for failure in failures:
            if failure is not None:
                raise failure
