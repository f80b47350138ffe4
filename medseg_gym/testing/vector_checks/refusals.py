"""Laws of manners: bad input is refused, and closing is final and harmless."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from medseg_gym.testing.vector_checks.report import VectorEnvError
from medseg_gym.testing.vector_checks.subject import SEED, Subject


def check_bad_input(subject: Subject) -> None:
    """A seed list or reset mask of the wrong length raises.

    Going on would seed or reset other slots than were meant.
    """
    n = subject.num_envs
    bad: list[dict[str, Any]] = [{"seed": list(range(SEED, SEED + n + 1))}]
    if n > 1:
        bad.append({"seed": list(range(SEED, SEED + n - 1))})
    if subject.mode == AutoresetMode.DISABLED:
        bad += [{"options": {"reset_mask": np.ones(n + 1, bool)}}]
        if n > 1:
            bad += [{"options": {"reset_mask": np.ones(n - 1, bool)}}]
    for arguments in bad:
        subject.envs.reset(seed=SEED)
        shown = ", ".join(f"{name}={value}" for name, value in arguments.items())
        try:
            subject.envs.reset(**arguments)
        except Exception:  # any exception is a refusal
            continue
        raise VectorEnvError(
            f"reset({shown}) to raise with num_envs={n}",
            "it was accepted",
            "compare the length with num_envs before using it",
        )


def check_close_twice(subject: Subject) -> None:
    """`close()` a second time does nothing.

    It is called by hand, by a context and at the interpreter's exit.
    """
    with subject.partner(1) as partner:
        partner.reset(seed=SEED)
        partner.close()
        try:
            partner.close()
        except Exception as error:
            raise VectorEnvError(
                "a second close() to be harmless",
                f"{type(error).__name__}: {error}",
                "override close_extras instead of close, or return early when self.closed",
            ) from error
