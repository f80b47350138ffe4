"""A forked episode is its source: it replays it bit by bit, and neither knows of the other."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import medseg_gym  # noqa: F401
from medseg_gym.cases import VolumeCase
from medseg_gym.episodes import rewards
from medseg_gym.errors import EpisodeError, MedSegError
from medseg_gym.prompts import AddBox, AddPoint, Clear, Stop, Undo, encode_tool_call
from medseg_gym.prompts.volumes import Look, Propagate, SlicePrompt, encode_volume_call

SLOTS = 4
MODES = ["next_step", "same_step", "disabled"]
IDS = sorted(id for id in gym.registry if id.startswith("MedSeg"))
REWARDS = [*rewards.names(), "dice_gain + 0.5 * format - 0.1 * stop_regret"]
# What shapes what follows: prompts in force, states to undo, calls that change nothing.
ACTIONS = [
    AddBox(0.2, 0.3, 0.7, 0.9),
    AddBox(0.5, 0.5, 0.5, 0.5),
    AddPoint(0.4, 0.6, True),
    AddPoint(0.6, 0.4, False),
    Undo(),
    Clear(),
    Stop(),
    AddBox(0.1, 0.1, 0.9, 0.6),
]
DEPTH = 4
# The same numbers in a volume of so many slices; box, click, undo, clear, stop keep theirs.
VOLUME_ACTIONS = [
    SlicePrompt(1, AddBox(0.2, 0.3, 0.7, 0.9)),
    Look(3),
    SlicePrompt(2, AddPoint(0.4, 0.6)),
    Propagate(),
    Undo(),
    Clear(),
    Stop(),
    SlicePrompt(0, AddBox(0.1, 0.1, 0.9, 0.6)),
]


def cases_for(env_id, cases):
    """The cases, or volumes made of them."""
    if "Volume" not in env_id:
        return cases
    return [
        VolumeCase(
            case.key,
            np.stack([np.roll(case.image, 2 * index, axis=0) for index in range(DEPTH)]),
            np.stack([np.roll(case.mask, 2 * index, axis=0) for index in range(DEPTH)]),
            case.target,
        )
        for case in cases
    ]


def make_vec(env_id, cases, mode="disabled", num_envs=SLOTS, **options):
    cases = cases_for(env_id, cases)
    options = {"backbone": "ellipse", "image_size": 32, "max_steps": 5, **options}
    return gym.make_vec(
        env_id, num_envs=num_envs, cases=cases, autoreset_mode=mode, **options
    ).unwrapped


def actions_of(envs, numbers):
    """Actions of either view for numbers of `ACTIONS`, a number a slot."""
    if "VolumeChat" in type(envs).__name__:
        return [f"thought {n} {encode_volume_call(VOLUME_ACTIONS[n])}" for n in numbers]
    if "Volume" in type(envs).__name__:
        return np.stack([envs.codec.encode(VOLUME_ACTIONS[n], DEPTH) for n in numbers])
    if "Chat" in type(envs).__name__:
        # Words that an answer's call does not hold must be copied, too.
        return [f"thought {n} {encode_tool_call(ACTIONS[n])}" for n in numbers]
    return np.stack([envs.codec.encode(ACTIONS[n]) for n in numbers])


def told_of(infos, slot):
    """A slot's entries of a vector environment's infos, nested ones too."""
    return {
        name: told_of(values, slot) if isinstance(values, dict) else values[slot]
        for name, values in infos.items()
        if not name.startswith("_") and infos[f"_{name}"][slot]
    }


def row(envs, stepped, slot):
    """Everything that a step says of a slot."""
    observations, values, terminations, truncations, infos = stepped
    told = told_of(infos, slot)
    final = told.pop("final_obs", None)
    shown = [envs.view.row(observations, slot)] + ([] if final is None else [final])
    flags = (terminations[slot], truncations[slot])
    return shown, float(values[slot]), flags, told


def assert_same_row(first, second):
    for ours, theirs in zip(first[0], second[0], strict=True):
        for key in ours:
            np.testing.assert_array_equal(ours[key], theirs[key])
    assert first[1:] == second[1:]


def assert_same_episode(first, second):
    assert first is not second and first.case.key == second.case.key
    assert first.rewards == second.rewards and first.max_steps == second.max_steps
    assert first.steps_left == second.steps_left and len(first._before) == len(second._before)
    for ours, theirs in zip(
        [first.state, *first._before], [second.state, *second._before], strict=True
    ):
        if isinstance(first.case, VolumeCase):
            assert_same_slices(ours, theirs)
            continue
        assert torch.equal(ours.mask, theirs.mask)
        assert (ours.box, ours.points, ours.pixels) == (theirs.box, theirs.points, theirs.pixels)
        assert (ours.logits is None) == (theirs.logits is None)
        assert ours.logits is None or torch.equal(ours.logits, theirs.logits)


def assert_same_slices(first, second):
    assert first.slices.keys() == second.slices.keys() and first.pixels == second.pixels
    for index, ours in first.slices.items():
        theirs = second.slices[index]
        np.testing.assert_array_equal(ours.bits, theirs.bits)
        assert torch.equal(ours.logits, theirs.logits)
        assert (ours.box, ours.points, ours.carried) == (theirs.box, theirs.points, theirs.carried)


def numbers(steps):
    return st.lists(
        st.lists(st.integers(0, len(ACTIONS) - 1), min_size=SLOTS, max_size=SLOTS),
        min_size=steps,
        max_size=steps,
    )


def run_to_fork(envs, before, seed):
    """Play some steps; return a slot that runs, or None."""
    envs.reset(seed=seed)
    for step in before:
        stepped = envs.step(actions_of(envs, step))
    if not before:
        return 0
    running = np.flatnonzero(~(stepped[2] | stepped[3]))
    return int(running[seed % len(running)]) if len(running) else None


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("env_id", IDS)
@settings(max_examples=12)
@given(before=st.integers(0, 3).flatmap(numbers), after=numbers(5), seed=st.integers(0, 9))
def test_a_fork_replays_its_source(env_id, mode, small_cases, before, after, seed):
    envs = make_vec(env_id, small_cases, mode, max_episode_steps=4)
    source = run_to_fork(envs, before, seed)
    if source is None:
        return
    target = (source + 1) % SLOTS
    assert envs.fork([source], [target]) == [target]
    ours, theirs = envs.episodes[source], envs.episodes[target]
    assert ours.case is theirs.case and ours.state is theirs.state
    if not isinstance(ours.case, VolumeCase):  # volumes keep no embedding and no tensor of truth
        assert ours.truth is theirs.truth and ours.embedding is theirs.embedding
    assert_same_episode(ours, theirs)
    for step in after:
        step[target] = step[source]
        stepped = envs.step(actions_of(envs, step))
        assert_same_row(row(envs, stepped, source), row(envs, stepped, target))
        # Of the same case beyond an end, too: the slot's generator is copied.
        assert_same_episode(envs.episodes[source], envs.episodes[target])
        if hasattr(envs, "messages"):
            assert envs.messages(source) == envs.messages(target)


@pytest.mark.parametrize("env_id", IDS)
@settings(max_examples=12)
@given(before=st.integers(0, 3).flatmap(numbers), after=numbers(4), seed=st.integers(0, 9))
def test_what_a_fork_does_is_nothing_to_its_source(env_id, small_cases, before, after, seed):
    envs, alone = (make_vec(env_id, small_cases, "next_step") for _ in range(2))
    source = run_to_fork(envs, before, seed)
    assert run_to_fork(alone, before, seed) == source
    if source is None:
        return
    target = (source + 1) % SLOTS
    envs.fork([source], [target])
    for step in after:
        ours, theirs = envs.step(actions_of(envs, step)), alone.step(actions_of(alone, step))
        for slot in set(range(SLOTS)) - {target}:
            assert_same_row(row(envs, ours, slot), row(alone, theirs, slot))


@pytest.mark.parametrize("reward", REWARDS)
@pytest.mark.parametrize("backbone", ["ellipse", "tiny"])
def test_forks_are_exact_under_every_reward_and_a_learned_backbone(
    reward, backbone, small_cases, tiny_backbone
):
    backbone = tiny_backbone if backbone == "tiny" else backbone
    envs = make_vec("MedSeg-v0", small_cases, backbone=backbone, reward=reward)
    envs.reset(seed=3)
    encodes = envs.engine.cache.counters.encodes
    envs.step(actions_of(envs, [0, 2, 7, 2]))
    envs.fork([0, 0], [2, 3])
    assert envs.engine.cache.counters.encodes == encodes
    for number in (2, 3, 4, 6):
        stepped = envs.step(actions_of(envs, [number] * SLOTS))
        for slot in (2, 3):
            assert_same_row(row(envs, stepped, 0), row(envs, stepped, slot))
            assert_same_episode(envs.episodes[0], envs.episodes[slot])


def test_free_slots_are_those_that_have_ended(small_cases):
    envs = make_vec("MedSeg-v0", small_cases)
    with pytest.raises(EpisodeError, match="slot 0 has no episode"):
        envs.fork([0])
    envs.reset(seed=0)
    with pytest.raises(MedSegError, match="1 episodes to fork, but only 0 slots"):
        envs.fork([0])
    stop, box = 6, 0
    envs.step(actions_of(envs, [box, stop, box, stop]))
    with pytest.raises(EpisodeError, match=r"slot 1 .* is over"):
        envs.fork([1], [0])
    assert envs.fork([0, 2]) == [1, 3]
    assert envs.episodes[1].case is envs.episodes[0].case
    _, _, terminations, _, infos = envs.step(actions_of(envs, [stop, box, stop, box]))
    assert terminations.tolist() == [True, False, True, False]
    assert infos["_dice"].all()


@pytest.mark.parametrize(
    ("sources", "targets", "match"),
    [
        ([4], [0], r"sources: no slot \[4\]; there are 0 to 3"),
        ([0], [-1], r"targets: no slot \[-1\]"),
        ([0, 0], [1], "targets must be 2 distinct slots"),
        ([0, 0], [1, 1], "targets must be 2 distinct slots"),
        ([0, 1], [1, 2], "none of them a source"),
    ],
)
def test_forks_that_cannot_be(sources, targets, match, small_cases):
    envs = make_vec("MedSeg-v0", small_cases)
    envs.reset(seed=0)
    with pytest.raises(MedSegError, match=match):
        envs.fork(sources, targets)


def test_an_episode_that_a_time_limit_cut_off_is_not_forked(small_cases):
    envs = make_vec("MedSeg-v0", small_cases, max_episode_steps=1)
    envs.reset(seed=0)
    envs.step(actions_of(envs, [0] * SLOTS))
    with pytest.raises(EpisodeError, match=r"slots \[0\] were cut off by the time limit of 1 step"):
        envs.fork([0], [1])


@pytest.mark.parametrize("env_id", IDS)
def test_states_are_restored_as_often_as_one_likes(env_id, small_cases):
    envs = make_vec(env_id, small_cases)
    envs.reset(seed=5)
    envs.step(actions_of(envs, [0, 2, 7, 0]))
    states = envs.clone_state([0, 1])
    first = envs.step(actions_of(envs, [6, 6, 6, 6]))
    for _ in range(2):
        envs.restore_state([2, 3], states)
        again = envs.step(actions_of(envs, [6, 6, 6, 6]))
        for slot in (0, 1):
            assert_same_row(row(envs, first, slot), row(envs, again, slot + 2))
    with pytest.raises(MedSegError, match="slots must be distinct, one per state"):
        envs.restore_state([1, 1], states)
    with pytest.raises(EpisodeError, match="cloned from another environment"):
        make_vec(env_id, small_cases).restore_state([0], states[:1])


@pytest.mark.parametrize("env_id", IDS)
def test_a_single_environment_goes_back_to_a_state(env_id, small_cases):
    options = {"backbone": "ellipse", "image_size": 32, "max_steps": 4}
    env = gym.make(env_id, cases=cases_for(env_id, small_cases), **options).unwrapped
    env.reset(seed=2)
    before = env.step(actions_of(env, [0])[0])[0]
    state = env.clone_state()

    def play():
        told = [env.step(actions_of(env, [n])[0]) for n in (2, 4, 6)]
        return told, env.reset()[1]["case"]

    first = play()
    shown = env.restore_state(state)
    for key in before:
        np.testing.assert_array_equal(before[key], shown[key])
    second = play()
    assert first[1] == second[1]  # the next case
    for ours, theirs in zip(first[0], second[0], strict=True):
        assert ours[1:] == theirs[1:]
        for key in before:
            np.testing.assert_array_equal(ours[0][key], theirs[0][key])
    env.step(actions_of(env, [6])[0])
    with pytest.raises(EpisodeError, match="is over"):
        env.clone_state()
