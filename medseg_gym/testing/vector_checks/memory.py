"""Laws of memory: what is returned belongs to the caller, and so do the actions."""

from __future__ import annotations

from typing import Any

from medseg_gym.testing.vector_checks.comparison import difference, scribble, snapshot
from medseg_gym.testing.vector_checks.randomness import require_equal_stories
from medseg_gym.testing.vector_checks.report import CheckSkipped, VectorEnvError
from medseg_gym.testing.vector_checks.rollout import Return, batch_actions
from medseg_gym.testing.vector_checks.subject import Subject


def check_returns_stay(subject: Subject) -> None:
    """Check that values which `reset` and `step` returned are not changed by later calls.

    Learners keep a rollout's observations until the update; from a reused buffer they all become
    the last one, silently.
    """
    kept: list[tuple[str, Any, Any]] = []

    def inspect(live: Return, _: Any) -> None:
        call = f"{live.kind}() (call {len(kept) + 1})"
        for name, value, copied in kept[-1:]:
            _require_unchanged(name, value, copied, call)
        kept.append((call, live.outputs(), snapshot(live.outputs())))

    subject.play(on_return=inspect)
    subject.envs.reset()
    for name, value, copied in kept:
        _require_unchanged(name, value, copied, "the calls that followed")


def _require_unchanged(name: str, value: object, copied: object, by: str) -> None:
    text = difference(copied, value)
    if text is not None:
        raise VectorEnvError(
            f"what {name} returned to stay as it was",
            f"after {by}: {text}",
            "a buffer is reused between calls: return copies (SyncVectorEnv: copy=True)",
        )


def check_returns_are_the_callers(subject: Subject) -> None:
    """Writing into what was returned, or into the actions passed, does not change what follows.

    Normalising an observation in place must not alter the episode it came from.
    """
    subject.need_determinism()

    def spoil(live: Return, passed: Any) -> None:
        scribble(live.outputs())
        scribble(passed)

    try:  # what is spoilt should rather be a partner's
        with subject.partner(subject.num_envs) as partner:
            actual = subject.play(envs=partner, after_return=spoil)
    except CheckSkipped:
        actual = subject.play(after_return=spoil)
    require_equal_stories(
        subject.reference,
        actual,
        "the same episodes when the caller overwrites each return and each action after use",
        "a returned array or dict, or the action array, is the environment's own state or a view "
        "of it: hand out copies",
    )


def check_actions_stay(subject: Subject) -> None:
    """`step` does not write into the actions it is given.

    The learner stores the same array beside its log-probabilities.
    """

    def inspect(live: Return, passed: Any) -> None:
        if live.kind == "reset":
            return
        text = difference(batch_actions(subject.envs, live.actions), passed, path="actions")
        if text is not None:
            raise VectorEnvError(
                "the action batch as it was before step()",
                text,
                "actions are clipped or converted in place: work on a copy",
            )

    subject.play(on_return=inspect)
