"""Laws of randomness: seeds say everything, global generators nothing."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from medseg_gym.testing.vector_checks.comparison import difference
from medseg_gym.testing.vector_checks.report import CheckSkipped, VectorEnvError
from medseg_gym.testing.vector_checks.rollout import Rollout, story_difference
from medseg_gym.testing.vector_checks.subject import SEED, Subject

_LEFT_OVER = "reset() leaves a step counter, a done flag or a part of the last episode behind"
_OTHER_SEEDS = 5  # resets looked at before a generator is said to stand still


def require_equal_stories(
    expected: Rollout,
    actual: Rollout,
    law: str,
    cause: str,
    *,
    slots: dict[int, int] | None = None,
    atol: float = 0.0,
) -> None:
    """Raises if a slot lived through something else than its counterpart.

    Args:
        expected: The rollout that is taken as right.
        actual: The rollout compared with it.
        law: What is expected, for the message.
        cause: The likely cause, for the message.
        slots: Slot of `found` by slot of `expected`; by default each its own.
        atol: Tolerance for floats.
    """
    for (a, b), text in story_differences(expected, actual, slots, atol).items():
        raise VectorEnvError(law, text, cause, slots=[a] if a == b else [a, b])


def story_differences(
    expected: Rollout, actual: Rollout, slots: dict[int, int] | None = None, atol: float = 0.0
) -> dict[tuple[int, int], str]:
    """Return where each pair of slots differs, for those that do; see `require_equal_stories`."""
    n = len(expected.returns[0].slots)
    pairs = ({i: i for i in range(n)} if slots is None else slots).items()
    texts = {
        (a, b): story_difference(expected.story(a), actual.story(b), atol=atol) for a, b in pairs
    }
    return {pair: text for pair, text in texts.items() if text is not None}


def check_global_generators(subject: Subject) -> None:
    """The global generators of numpy, `random` and torch are neither used nor changed.

    Another library's random number would change the episodes, and the environment's would change
    the learner's: no run could be repeated.
    """
    with _global_generators_restored():
        rollouts = []
        for seed in (1, 1, 2):
            np.random.seed(seed)
            random.seed(seed)
            if "torch" in sys.modules:
                sys.modules["torch"].manual_seed(seed)
            before = _global_states()
            rollouts.append(subject.play())
            after = _global_states()
            changed = [name for name in before if difference(before[name], after[name])]
            if changed:
                raise VectorEnvError(
                    "the global random states as they were before reset and step",
                    f"changed: {', '.join(changed)}",
                    "draw from self.np_random (seeded by reset) instead of global functions",
                )
    subject.need_determinism()
    if story_differences(rollouts[0], rollouts[1]):
        return  # it does not repeat even so: that is for `repeat` to say
    require_equal_stories(
        rollouts[1],
        rollouts[2],
        "the same seed and actions to give the same episodes whatever the global seeds",
        "a number derived from the global random state: draw from self.np_random instead",
    )


def _generators() -> dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]]:
    """Get and set of every global generator of the process."""
    generators: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
        "numpy.random": (np.random.get_state, np.random.set_state),
        "random": (random.getstate, random.setstate),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        generators["torch"] = (torch.get_rng_state, torch.set_rng_state)
        if torch.cuda.is_initialized():
            generators["torch.cuda"] = (
                torch.cuda.get_rng_state_all,
                torch.cuda.set_rng_state_all,
            )
    return generators


def _global_states() -> dict[str, Any]:
    return {name: get() for name, (get, _) in _generators().items()}


@contextmanager
def _global_generators_restored() -> Iterator[None]:
    states = _global_states()
    try:
        yield
    finally:
        for name, (_, set_state) in _generators().items():
            if name in states:
                set_state(states[name])


def check_repeat(subject: Subject) -> None:
    """The same seed and the same actions give the same episodes, on the same object.

    Without it no result can be reproduced and no bug replayed.
    """
    subject.need_determinism()
    subject.play()  # so that both rollouts compared have the same one before them
    subject.reference, again = subject.play(), subject.play()
    texts = story_differences(subject.reference, again)
    if not texts:
        return
    law = f"two rollouts from reset(seed={SEED}) with the same actions to be identical"
    cause = "randomness that reset(seed=...) does not seed, or a clock in infos"
    check = ""
    try:  # two new objects tell apart what is random from what is left over
        with subject.partner(subject.num_envs) as one, subject.partner(subject.num_envs) as two:
            left_over = not story_differences(subject.play(envs=one), subject.play(envs=two))
    except CheckSkipped:
        cause += f"; or {_LEFT_OVER}"
    else:
        if left_over:
            cause, check = _LEFT_OVER, "reset forgets"
    (slot, _), text = next(iter(texts.items()))
    raise VectorEnvError(law, text, cause, slots=[slot], check=check)


def check_reset_forgets(subject: Subject) -> None:
    """A seeded reset starts from zero, wherever the episodes before it stood.

    A step counter, a done flag or a cache that survives `reset` shortens or shifts the episodes
    that follow.
    """
    subject.need_determinism()
    for steps in {1, max(1, subject.reference.steps // 3)}:
        subject.play(SEED + 1000, steps=steps, leave_ended=True)
        require_equal_stories(
            subject.reference,
            subject.play(),
            f"reset(seed={SEED}) in the middle of other episodes to start as any other time",
            _LEFT_OVER,
        )


def check_fresh_partner(subject: Subject) -> None:
    """The same seed and actions give the same episodes on another object of the same make.

    Evaluation, resuming from a checkpoint and remote workers all build the environment anew.
    """
    subject.need_determinism()
    with subject.partner(subject.num_envs) as partner:
        actual = subject.play(envs=partner)
    require_equal_stories(
        subject.reference,
        actual,
        f"a newly built environment to play as this one from reset(seed={SEED})",
        "state that outlives reset(), or a generator seeded in __init__",
    )


def check_seed_per_slot(subject: Subject) -> None:
    """An int seed s gives slot i the stream of seed s + i; a list gives each slot its own.

    That is SyncVectorEnv's convention: a slot can be replayed alone, and results do not depend on
    how many slots shared the work.
    """
    cause = (
        "slots share one generator, or reset takes no list of seeds: keep one generator per slot, "
        "seeded with seed + i or seed[i]"
    )
    try:
        actual = subject.play(subject.seeds)
    except Exception as error:
        raise VectorEnvError(
            f"reset(seed={subject.seeds}) to be accepted",
            f"{type(error).__name__}: {error}",
            cause,
        ) from error
    subject.need_determinism()
    require_equal_stories(
        subject.reference, actual, f"reset(seed={SEED}) to equal reset(seed={subject.seeds})", cause
    )


def check_generator_goes_on(subject: Subject) -> None:
    """Without a seed the generators go on: new episodes, and the same ones every time.

    A generator that starts over shows a learner the same episode for ever; one that is drawn anew
    makes every episode after the first unrepeatable.
    """
    subject.need_determinism()
    stories = []
    for _ in range(2):
        subject.play(steps=1, leave_ended=True)
        stories.append(subject.play(None))
    require_equal_stories(
        stories[0],
        stories[1],
        f"reset() after reset(seed={SEED}) and the same actions to go on in the same way",
        "reset(seed=None) makes a new generator instead of using the one it has",
    )

    seeded = _resets(subject, [SEED])[0]
    others = _resets(subject, [SEED + k for k in range(1, _OTHER_SEEDS + 1)])
    if not any(difference(seeded, other) for other in others):
        return  # episodes start alike whatever the seed: nothing to tell apart
    _resets(subject, [SEED])
    later = _resets(subject, [None] * _OTHER_SEEDS)
    replays = all(difference(seeded, other) is None for other in later)
    _forbid_replay(replays, f"{_OTHER_SEEDS} calls of reset() after reset(seed={SEED})")

    starts: list[tuple[Any, Any]] = []
    for slot in range(subject.num_envs):
        story = subject.reference.story(slot)
        starts += [(story[0], event) for event in story[1:] if event.kind == "reset"]
    replays = len(starts) > 2 and all(
        difference(first.observation, event.observation) is None for first, event in starts
    )
    _forbid_replay(replays, f"{len(starts)} episodes after the first ones")


def _resets(subject: Subject, seeds: list[Any]) -> list[Any]:
    return [subject.play(seed, steps=0).returns[0].observations for seed in seeds]


def _forbid_replay(replays: bool, what: str) -> None:
    if replays:
        raise VectorEnvError(
            f"{what} to start new episodes, as other seeds do",
            f"every one starts as reset(seed={SEED}) did",
            "the seed is kept and applied again at every reset: seed the generator once",
        )
