"""Laws of the DISABLED autoreset mode: who resets by mask resets those slots and no other."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from medseg_gym.testing.vector_checks.comparison import difference, slot_value, slots_in
from medseg_gym.testing.vector_checks.randomness import require_equal_stories
from medseg_gym.testing.vector_checks.report import CheckSkipped, VectorEnvError
from medseg_gym.testing.vector_checks.subject import SEED, Subject


def check_reset_mask(subject: Subject) -> None:
    """Under DISABLED, `options={"reset_mask": mask}` resets the masked slots and no other.

    Evaluation that plays every case once relies on it: a slot that is reset by mistake loses its
    episode, one that is not goes on with an old one.
    """
    _need_disabled(subject)
    envs, n = subject.envs, subject.num_envs
    space = envs.single_observation_space
    steps = 1
    if subject.reference.ends.any():
        steps = max(1, min(3, subject.reference.steps_to_first_end - 1))

    def approach() -> tuple[Any, np.ndarray, list[int]]:
        """Plays to the point of the masked reset: last observations, mask, slots left alone."""
        last = subject.play(steps=steps, leave_ended=True).returns[-1]
        mask = last.ended | (np.arange(n) == 0)
        return last.observations, mask, slots_in(~mask)

    def require(expected: object, actual: object, slots: list[int], law: str, cause: str) -> None:
        for i in slots:
            a, b = slot_value(space, expected, i), slot_value(space, actual, i)
            text = difference(a, b, path="observation")
            if text is not None:
                raise VectorEnvError(law, text, cause, slots=[i])

    alone = "slots outside reset_mask to keep their observations, bit for bit"
    ignored = "reset_mask is ignored and everything is reset"
    before, mask, others = approach()
    masked, _ = envs.reset(options={"reset_mask": mask.copy()})
    require(before, masked, others, alone, ignored)

    subject.need_determinism()
    require_equal_stories(
        subject.reference,
        subject.play(reset_first_every=2),
        "slots outside reset_mask to play on as if nothing had happened",
        "the masked reset touches the state or the generator of other slots, or a slot reads "
        "another's state",
        slots={i: i for i in range(1, n)},
        atol=subject.atol,
    )

    approach()
    full, _ = envs.reset()
    cause = "the mask is read the wrong way round, or the slot was not reset at all"
    law = "a masked slot to start as reset() would have started it"
    require(full, masked, slots_in(mask), law, cause)

    seed = SEED + 1000
    approach()
    full, _ = envs.reset(seed=seed)
    before, mask, others = approach()
    masked, _ = envs.reset(seed=seed, options={"reset_mask": mask.copy()})
    law = f"reset(seed={seed}, options=reset_mask) to seed slot i with {seed} + i"
    require(full, masked, slots_in(mask), law, "a masked reset drops the seed")
    require(before, masked, others, alone, ignored)


def check_reset_options(subject: Subject) -> None:
    """The caller's options dict can be passed again: the mask still holds.

    A `reset_mask` that is popped from the caller's dict makes the second masked reset a full one.
    """
    _need_disabled(subject)
    subject.need_slots()
    last = subject.play(steps=1, leave_ended=True).returns[-1]
    mask = last.ended | (np.arange(subject.num_envs) == 0)
    options = {"reset_mask": mask.copy()}
    before, _ = subject.envs.reset(options=options)
    if difference(mask, options.get("reset_mask")) is None:
        return
    if isinstance(subject.envs.unwrapped, SyncVectorEnv | AsyncVectorEnv):
        subject.envs.reset()
        raise CheckSkipped(
            "gymnasium's own vector environments pop reset_mask from the caller's dict, so that "
            "passing it twice resets every slot: pass a fresh dict to each reset"
        )
    after, _ = subject.envs.reset(options=options)
    space = subject.envs.single_observation_space
    for i in slots_in(~mask):
        text = difference(slot_value(space, before, i), slot_value(space, after, i))
        if text is not None:
            raise VectorEnvError(
                "the same options dict to mean the same in a second reset",
                f"the first reset left {options} of it, and the second reset slot {i} too",
                "reset() pops reset_mask from the caller's dict: copy the dict first",
                slots=[i],
            )


def _need_disabled(subject: Subject) -> None:
    if subject.mode != AutoresetMode.DISABLED:
        raise CheckSkipped(f"the autoreset mode is {subject.mode.name}")
