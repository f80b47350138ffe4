"""Laws of episode ends: the declared autoreset mode is the one that happens, and time limits hold.

https://farama.org/Vector-Autoreset-Mode describes the three modes.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from gymnasium.vector import AutoresetMode

from medseg_gym.testing.vector_checks.comparison import (
    difference,
    slot_value,
    slots_in,
    space_mismatch,
)
from medseg_gym.testing.vector_checks.independence import first_departure
from medseg_gym.testing.vector_checks.randomness import require_equal_stories
from medseg_gym.testing.vector_checks.report import CheckSkipped, VectorEnvError
from medseg_gym.testing.vector_checks.subject import Subject


def check_autoreset_step(subject: Subject) -> None:
    """The call in which an episode ends, and the next, look as the declared mode says.

    NEXT_STEP: the next step ignores the action and gives reward 0 and no flag. SAME_STEP:
    `final_obs` and `final_info` of exactly the ended slots. DISABLED: neither happens.
    A learner that trusts the wrong mode bootstraps from another episode's observation.
    """
    subject.need_ends()
    if subject.mode == AutoresetMode.NEXT_STEP:
        _check_next_step(subject)
    elif subject.mode == AutoresetMode.SAME_STEP:
        _check_same_step(subject)
    else:
        for r in subject.reference.returns:
            slots = slots_in(r.infos.get("_final_obs", False))
            if slots:
                raise VectorEnvError(
                    "no final_obs under AutoresetMode.DISABLED",
                    "infos['_final_obs'] is set",
                    "the environment resets by itself: declare SAME_STEP, or leave it out",
                    slots=slots,
                )


def _check_next_step(subject: Subject) -> None:
    for r in subject.reference.returns:
        wrong = r.ignored & (r.ended | (np.asarray(0 if r.rewards is None else r.rewards) != 0))
        if wrong.any():
            i = slots_in(wrong)[0]
            raise VectorEnvError(
                "reward 0 and no flag in the step after an episode's end (NEXT_STEP)",
                f"slot {i}: reward {r.rewards[i]}, terminated {r.terminations[i]}, "
                f"truncated {r.truncations[i]}",
                "the slot was already reset in the step that ended it (declare SAME_STEP), or "
                "stepped instead of reset",
                slots=slots_in(wrong),
            )
    subject.need_determinism()
    require_equal_stories(
        subject.reference,
        subject.play(other_ignored_actions=True),
        "the action in the step after an episode's end to be ignored (NEXT_STEP)",
        "that step plays the new episode instead of resetting: the mode is SAME_STEP, or the "
        "autoreset is missing",
    )


def _check_same_step(subject: Subject) -> None:
    nobody = np.zeros(subject.num_envs, bool)
    for r in subject.reference.returns:
        for key in ("final_obs", "final_info"):
            mask = np.asarray(r.infos.get(f"_{key}", nobody))
            if (key in r.infos or r.ended.any()) and (mask != r.ended).any():
                raise VectorEnvError(
                    f"infos[{key!r}] for exactly the slots that ended, {r.ended} (SAME_STEP)",
                    f"mask {mask}" if key in r.infos else f"no {key!r} in {sorted(r.infos)}",
                    "the slot is reset in the next step (declare NEXT_STEP), or its last "
                    "observation and info are dropped",
                    slots=slots_in(mask != r.ended),
                )
        for i in slots_in(r.ended):
            path = f"final_obs[{i}]"
            try:
                final = r.infos["final_obs"][i]
            except (KeyError, IndexError, TypeError):  # a dict of batches, say
                text: str | None = "final_obs is not an array with one observation per slot"
            else:
                text = space_mismatch(subject.envs.single_observation_space, final, path)
            if text is not None:
                raise VectorEnvError(
                    f"{path} in single_observation_space",
                    text,
                    "final_obs is an object array holding the ended slots' single observations",
                    slots=[i],
                )


def check_new_episode(subject: Subject) -> None:
    """After an end comes what `reset()` gives, and before it the episode's own last observation.

    A final observation that is the next episode's first one teaches a value function that every
    truncated episode ended well or badly at random.
    """
    subject.need_ends()
    subject.need_determinism()
    if subject.mode == AutoresetMode.SAME_STEP:
        _forbid_final_equal_to_first(subject)
    else:
        _require_manual_reset(subject)
    try:
        with subject.single() as env:
            alike = env.action_space == subject.envs.single_action_space
            for slot in subject.sample_slots if alike else []:
                departure = first_departure(subject, env, subject.reference, slot)
                if departure is None or departure.field_name != "observation":
                    continue  # the rest is the business of `single against vector`
                at_end = departure.expected.ended
                at_start = departure.expected.kind == "reset" and departure.index > 0
                if at_end or at_start:
                    what = "last observation of the ended episode" if at_end else "first one"
                    raise VectorEnvError(
                        f"the {what} around an episode's end as the single environment shows it",
                        departure.text,
                        "the observation of the next or the last episode is reported in its place",
                        slots=[slot],
                    )
    except CheckSkipped as skipped:
        if subject.mode == AutoresetMode.SAME_STEP:
            raise CheckSkipped(f"final_obs needs the single environment: {skipped}") from None


def _forbid_final_equal_to_first(subject: Subject) -> None:
    """Without a single environment: final_obs that always is the next episode's observation."""
    pairs = []
    for slot in range(subject.num_envs):
        story = subject.reference.story(slot)
        for event, following in pairwise(story):
            if event.ended:
                pairs.append((event.observation, following.observation))
    same = all(difference(final, first) is None for final, first in pairs)
    if same and any(difference(pairs[0][1], first) is not None for _, first in pairs):
        raise VectorEnvError(
            "final_obs to show the episode that ended (SAME_STEP)",
            f"in all {len(pairs)} ends it equals the new episode's first observation",
            "final_obs is taken after the reset, or is a view of a buffer that the reset overwrote",
        )


def _require_manual_reset(subject: Subject) -> None:
    """The first automatic or masked reset gives what `reset()` would have given there."""
    steps = subject.reference.steps_to_first_end
    ended = subject.play(steps=steps, leave_ended=True).returns[-1].ended
    observations, _ = subject.envs.reset()
    for i in slots_in(ended):
        expected = slot_value(subject.envs.single_observation_space, observations, i)
        story = subject.reference.story(i)
        events = [event for event in story[1:] if event.kind == "reset"]
        text = difference(expected, events[0].observation, path="observation") if events else None
        if text is not None:
            raise VectorEnvError(
                "the new episode to start as reset() would have started it",
                text,
                "no reset takes place where the mode says so, or it draws from another generator",
                slots=[i],
            )


def check_time_limit(subject: Subject) -> None:
    """Episodes are truncated at exactly `max_episode_steps`, counted from their own reset.

    The step after a NEXT_STEP end is not a step of the new episode, and a counter that is not
    cleared cuts later episodes short.
    """
    spec = subject.envs.spec
    limit = None if spec is None else spec.kwargs.get("max_episode_steps", spec.max_episode_steps)
    if limit is None or limit < 1:
        raise CheckSkipped("envs.spec has no max_episode_steps")
    reached = False
    early_first: list[tuple[int, int, int]] = []
    early_later: list[tuple[int, int, int]] = []
    for slot in range(subject.num_envs):
        for number, steps in enumerate(subject.reference.episodes(slot)):
            if len(steps) > limit or (len(steps) == limit and not steps[-1].truncated):
                raise VectorEnvError(
                    f"truncation at step {limit}, the spec's max_episode_steps",
                    f"episode {number + 1} was not truncated by its step {limit}",
                    "the limit is off by one, counts a reset as a step, or is not passed on",
                    slots=[slot],
                )
            reached = reached or len(steps) == limit
            if len(steps) < limit and steps and steps[-1].truncated and not steps[-1].terminated:
                (early_later if number else early_first).append((slot, number, len(steps)))
    if not reached:
        raise CheckSkipped(f"no episode reached max_episode_steps = {limit}")
    if early_later and not early_first:
        slot, number, length = early_later[0]
        raise VectorEnvError(
            f"later episodes to be truncated at step {limit} as the first ones are",
            f"episode {number + 1} was truncated at its step {length}",
            "the step counter is not cleared by the automatic reset, or counts it as a step",
            slots=[slot],
        )
