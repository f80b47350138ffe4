"""`check_vector_env`: what gymnasium's `check_env` is for single environments, for vector ones."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium as gym
from gymnasium.vector import VectorEnv

from medseg_gym.testing.vector_checks import (
    CheckResult,
    VectorEnvError,
    VectorEnvReport,
    autoreset,
    independence,
    interface,
    memory,
    randomness,
    refusals,
    reset_mask,
)
from medseg_gym.testing.vector_checks.report import CheckSkipped, PartnerError
from medseg_gym.testing.vector_checks.subject import MakeSingle, MakeVector, Subject

__all__ = ["CHECKS", "CheckResult", "VectorEnvError", "VectorEnvReport", "check_vector_env"]

CHECKS: dict[str, Callable[[Subject], None]] = {
    # each may rely on the laws above it: the first that breaks is the one to blame
    "spaces": interface.check_spaces,
    "autoreset mode": interface.check_autoreset_mode,
    "reset and step": interface.check_reset_and_step,
    "infos": interface.check_infos,
    "global generators": randomness.check_global_generators,
    "actions stay": memory.check_actions_stay,
    "returns stay": memory.check_returns_stay,
    "repeat": randomness.check_repeat,
    "reset forgets": randomness.check_reset_forgets,
    "fresh partner": randomness.check_fresh_partner,
    "seed per slot": randomness.check_seed_per_slot,
    "generator goes on": randomness.check_generator_goes_on,
    "returns are the caller's": memory.check_returns_are_the_callers,
    "reset mask": reset_mask.check_reset_mask,
    "reset options": reset_mask.check_reset_options,
    "autoreset step": autoreset.check_autoreset_step,
    "permutation": independence.check_permutation,
    "neighbours": independence.check_neighbours,
    "num_envs": independence.check_num_envs,
    "time limit": autoreset.check_time_limit,
    "new episode": autoreset.check_new_episode,
    "single against vector": independence.check_single,
    "bad input": refusals.check_bad_input,
    "close twice": refusals.check_close_twice,
}


def check_vector_env(
    envs: VectorEnv,
    *,
    make_vector: MakeVector | None = None,
    make_single: MakeSingle | None = None,
    atol: float = 0.0,
) -> VectorEnvReport:
    """Checks that a vector environment keeps the laws that learners rely on.

    Works for any `gymnasium.vector.VectorEnv` in any autoreset mode. It plays a few dozen short
    rollouts with seeded random actions, so an environment whose step is slow takes its time.

    Args:
        envs: The environment to check, open. It is left open and freshly reset.
        make_vector: `make_vector(num_envs)` builds another vector environment of the same make
            with that many slots. By default it is built from `envs.spec`; where that cannot be
            done, the checks that need it are skipped and the report says so.
        make_single: `make_single()` builds the single environment; by default from `envs.spec`.
        atol: Absolute tolerance for floats (observations, rewards, infos) between slots, batch
            sizes and the single environment. 0 asks for equal bits; integers, booleans and
            strings are always compared exactly.

    Returns:
        The outcome of every check in `CHECKS`; `print` it.

    Raises:
        VectorEnvError: At the first law that is broken (an `AssertionError`); it names the check,
            the slots, what was expected and found, and the likely cause.
        TypeError: If `envs` is no vector environment.
        ValueError: If `envs` is closed, `atol` is negative, or `make_vector` builds something
            that is no partner of `envs`.

    Example:
        >>> import gymnasium as gym
        >>> envs = gym.make_vec("CartPole-v1", num_envs=3, vectorization_mode="sync")
        >>> report = check_vector_env(envs)
        >>> "single against vector" in report.passed
        True
        >>> report.skipped["time limit"]
        'no episode reached max_episode_steps = 500'
        >>> envs.close()
    """
    if not isinstance(envs, VectorEnv):
        hint = "; use gymnasium.utils.env_checker.check_env" if isinstance(envs, gym.Env) else ""
        raise TypeError(f"check_vector_env wants a VectorEnv, not {type(envs).__name__}{hint}")
    if envs.closed:
        raise ValueError("check_vector_env wants an open environment; this one is closed")
    if not atol >= 0:
        raise ValueError(f"atol must be >= 0, got {atol}")
    subject = Subject(envs, make_vector, make_single, atol)
    report = VectorEnvReport(repr(envs))
    try:
        for name, check in CHECKS.items():
            report.results.append(_run(name, check, subject))
    finally:
        _leave_reset(envs)
    return report


def _run(name: str, check: Callable[[Subject], None], subject: Subject) -> CheckResult:
    try:
        check(subject)
    except CheckSkipped as skipped:
        return CheckResult(name, "skipped", str(skipped))
    except VectorEnvError as error:
        error.check = error.check or name
        raise
    except PartnerError:
        raise
    except Exception as error:
        raise VectorEnvError(
            "no exception",
            f"{type(error).__name__}: {error}",
            "reset or step does not accept what a learner sends, see the traceback above",
            check=name,
        ) from error
    return CheckResult(name, "passed")


def _leave_reset(envs: VectorEnv) -> None:
    try:
        envs.reset()
    except Exception:  # a broken environment may not reset; the broken law matters more
        pass
