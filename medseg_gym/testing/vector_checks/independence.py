"""Laws of independence: a slot is an environment of its own, as the single environment is."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium as gym

from medseg_gym.testing.vector_checks.randomness import require_equal_stories
from medseg_gym.testing.vector_checks.report import VectorEnvError
from medseg_gym.testing.vector_checks.rollout import Event, Rollout, event_difference
from medseg_gym.testing.vector_checks.subject import SEED, Subject

_CROSS_TALK = (
    "a slot reads another slot's state, a statistic of the batch, or a slot's index (mixed-up "
    "rows, a shared generator, normalisation over the batch; for a number in infos: "
    "VectorEnv._add_info gives the batch the first slot's dtype, and ints cut off others' floats)"
)


def check_permutation(subject: Subject) -> None:
    """Permuting seeds and actions over the slots permutes the results.

    Otherwise slots are not exchangeable, and a learner fits the slot's number.
    """
    subject.need_slots()
    subject.need_determinism()
    n = subject.num_envs
    require_equal_stories(
        subject.reference,
        subject.play(subject.seeds[::-1]),
        "reversing seeds and actions over the slots to reverse the results",
        _CROSS_TALK,
        slots={i: n - 1 - i for i in range(n)},
        atol=subject.atol,
    )


def check_neighbours(subject: Subject) -> None:
    """A slot's episodes do not depend on what the other slots are given.

    Cross-talk correlates the samples of a batch and leaks one episode's outcome into another's
    observation.
    """
    subject.need_slots()
    subject.need_determinism()
    for slot in subject.sample_slots:
        seeds = [seed if i == slot else seed + 1000 for i, seed in enumerate(subject.seeds)]
        require_equal_stories(
            subject.reference,
            subject.play(seeds),
            f"slot {slot} to play the same when the seeds and actions of all others change",
            _CROSS_TALK,
            slots={slot: slot},
            atol=subject.atol,
        )


def check_num_envs(subject: Subject) -> None:
    """A slot's episodes do not depend on how many slots there are.

    Results measured with 64 slots should hold for one.
    """
    subject.need_determinism()
    n = subject.num_envs
    for other in sorted({1, n + 1} - {n}):
        with subject.partner(other) as partner:
            actual = subject.play(envs=partner)
        require_equal_stories(
            subject.reference,
            actual,
            f"the same episodes with num_envs={other} as with num_envs={n}",
            "something is divided by or indexed with the batch size; if only the last bits of "
            "floats differ, pass atol=",
            slots={i: i for i in range(min(n, other))},
            atol=subject.atol,
        )


@dataclass
class Departure:
    """Return where a slot first differs from the single environment."""

    index: int  # of the event in the slot's story
    expected: Event  # the single environment's
    field_name: str
    text: str


def first_departure(
    subject: Subject, env: gym.Env, rollout: Rollout, slot: int
) -> Departure | None:
    """Replays a slot of a rollout from `reset(seed=SEED)` in the single environment."""
    episode, step = 0, 0
    for index, actual in enumerate(rollout.story(slot)):
        if actual.kind == "reset":
            episode, step = episode + 1, 0
            seed = None if index else SEED + slot
            expected = Event("reset", *env.reset(seed=seed))
        else:
            step += 1
            observation, reward, terminated, truncated, info = env.step(actual.action)
            expected = Event(
                "step", observation, info, actual.action, reward, terminated, truncated
            )
        differs = event_difference(expected, actual, atol=subject.atol, loose=True)
        if differs is not None:
            name, text = differs
            return Departure(index, expected, name, f"episode {episode}, step {step}: {text}")
    return None


def check_single(subject: Subject) -> None:
    """The single environment with seed s + i and slot i's actions lives through the same.

    Observations, rewards, flags and infos, over several episodes. What is trained on the vector
    environment is evaluated, recorded and served on the single one.
    """
    subject.need_determinism()
    slots = range(subject.num_envs) if subject.num_envs <= 4 else subject.sample_slots
    with subject.single() as env:
        for name in ("observation_space", "action_space"):
            single, vector = getattr(env, name), getattr(subject.envs, f"single_{name}")
            if single != vector:
                raise VectorEnvError(
                    f"single_{name} equal to the single environment's {name}, {single}",
                    f"{vector}",
                    "the two are configured differently, so that what was trained on one cannot "
                    "play the other",
                )
        for slot in slots:
            departure = first_departure(subject, env, subject.reference, slot)
            if departure is not None:
                raise VectorEnvError(
                    f"slot {slot} as the single environment reset with seed {SEED + slot}",
                    departure.text,
                    "the two implementations differ; if only the last bits of floats do, pass "
                    "atol=",
                    slots=[slot],
                )
