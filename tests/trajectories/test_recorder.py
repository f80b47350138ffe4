import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from hypothesis import given, settings
from hypothesis import strategies as st

import medseg_gym  # noqa: F401
from medseg_gym.policy import make_envs
from medseg_gym.testing.check_vector_env import check_vector_env
from medseg_gym.trajectories import (
    EpisodeKey,
    Recorder,
    TrajectoryError,
    TrajectoryStore,
    TrajectoryWriter,
    VectorRecorder,
    rebuild_episode,
    replay_store,
)

OPTIONS = {"backbone": "ellipse", "image_size": 16, "bins": 7, "max_steps": 4}
MODES = ["next_step", "same_step", "disabled"]


class Witness(gym.vector.VectorWrapper):
    """Keeps, in memory, every step of every episode: what a store must hold afterwards."""

    def __init__(self, env):
        super().__init__(env)
        self.steps: dict[int, list] = {}
        self.episodes: dict[int, object] = {}

    def step(self, actions):
        before = [(e, len(e.steps)) for e in self.env.unwrapped.episodes]
        result = self.env.step(actions)
        for slot, (episode, taken) in enumerate(before):
            if len(episode.steps) > taken:
                self.episodes[id(episode)] = episode
                ended = bool(result[2][slot]), bool(result[3][slot])
                self.steps.setdefault(id(episode), []).append((float(result[1][slot]), *ended))
        return result


def assert_equal(trajectory, episode, outcomes):
    assert trajectory.facts.target == episode.case.target
    assert (trajectory.truth == episode.case.mask).all()
    assert trajectory.facts.image_hash == episode.case.content_hash
    assert len(trajectory.steps) == len(episode.steps) == len(outcomes)
    for row, mask, step, outcome in zip(
        trajectory.steps, trajectory.masks, episode.steps, outcomes, strict=True
    ):
        assert (row.prompt, row.valid, row.error) == (step.prompt, step.valid, step.error)
        assert (row.dice, row.iou, row.tool) == (step.dice, step.iou, step.tool)
        assert (row.reward, row.terminated, row.truncated) == outcome
        assert row.stopped == (step.effect == "stop")
        assert row.terms["dice_gain"] - row.terms["cost"] == row.reward
        np.testing.assert_array_equal(mask, step.state.mask.numpy())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("limit", [None, 3])
def test_what_is_read_is_what_happened(mode, limit, small_cases, tmp_path_factory):
    @settings(max_examples=4)
    @given(seed=st.integers(0, 2**31), num_envs=st.integers(1, 4), data=st.data())
    def check(seed, num_envs, data):
        path = tmp_path_factory.mktemp("store")
        chunk = data.draw(st.sampled_from([1, 3, 256]))
        envs = gym.make_vec(
            "MedSeg-v0",
            num_envs=num_envs,
            cases=small_cases,
            autoreset_mode=mode,
            max_episode_steps=limit,
            **OPTIONS,
        )
        witness = Witness(envs)
        with TrajectoryWriter(path, chunk_episodes=chunk) as writer:
            recorder = VectorRecorder(witness, writer, seed=5, policy="random")
            recorder.reset(seed=seed)
            recorder.action_space.seed(seed)
            for _ in range(12):
                ended = recorder.step(recorder.action_space.sample())
                if mode == "disabled" and (ended[2] | ended[3]).any():
                    recorder.reset(options={"reset_mask": ended[2] | ended[3]})
                if data.draw(st.integers(0, 9)) == 0:  # a reset in the middle of everything
                    recorder.reset(options={"reset_mask": np.arange(num_envs) == 0})
            recorder.close()
        store = TrajectoryStore(path)
        actual = [*store, *store.episodes(unfinished=True)]
        assert len(actual) == len(witness.steps)
        assert store.duplicates == 0

        def order(steps, outcomes):
            return repr(([s.prompt for s in steps], outcomes))

        expected = [(witness.episodes[i], rows) for i, rows in witness.steps.items()]
        expected.sort(key=lambda pair: (pair[0].case.key, order(pair[0].steps, pair[1])))
        actual.sort(
            key=lambda t: (
                t.key.case,
                order(t.steps, [(s.reward, s.terminated, s.truncated) for s in t.steps]),
            )
        )
        for trajectory, (episode, outcomes) in zip(actual, expected, strict=True):
            assert trajectory.key.case == episode.case.key and trajectory.key.seed == 5
            assert_equal(trajectory, episode, outcomes)

    check()


def test_a_single_environment_with_a_time_limit(small_cases, tmp_path):
    env = gym.make("MedSeg-v0", cases=small_cases, **{**OPTIONS, "max_steps": 6})
    env = Recorder(TimeLimit(env, 3), tmp_path, policy="random")
    env.action_space.seed(0)
    ends, episodes = [], []
    for seed in range(6):
        _, info = env.reset(seed=seed)
        over = False
        while not over:
            _, _, terminated, truncated, info = env.step(env.action_space.sample())
            over = terminated or truncated
        ends.append((info["case"], terminated, truncated, info["dice"]))
        episodes.append(env.unwrapped.episode)
    env.reset(seed=6)
    env.step(env.action_space.sample())
    env.close()
    store = TrajectoryStore(tmp_path)
    last = [(t.key.case, t.steps[-1].terminated, t.steps[-1].truncated, t.dice) for t in store]
    assert last == ends and any(end[2] for end in ends)
    (unfinished,) = store.episodes(unfinished=True)
    assert len(unfinished.steps) == 1 and not unfinished.finished
    assert {t.facts.source for t in store} == {"list"} and {t.facts.cases for t in store} == {None}


@pytest.mark.parametrize("mode", MODES)
def test_a_recorded_environment_keeps_the_laws(mode, small_cases, tmp_path):
    def make(num_envs):
        envs = gym.make_vec(
            "MedSeg-v0", num_envs=num_envs, cases=small_cases, autoreset_mode=mode, **OPTIONS
        )
        return VectorRecorder(envs, tmp_path / f"{num_envs}")

    envs = make(2)
    check_vector_env(
        envs,
        make_vector=make,
        make_single=lambda: gym.make("MedSeg-v0", cases=small_cases, **OPTIONS),
    )
    envs.close()


def test_rollouts_are_counted_and_go_on_where_they_were(make_store):
    first = len(TrajectoryStore(make_store(steps=40)))
    store = TrajectoryStore(make_store(steps=40))  # the same folder and seed again
    assert store.duplicates == 0 and len(store) > first
    for case in {key.case for key in store.keys()}:
        rollouts = sorted(key.rollout for key in store.keys() if key.case == case)
        assert rollouts == list(range(len(rollouts)))


def test_a_policy_tells_its_name_and_its_verdict(small_cases, tmp_path):
    class Judge:
        name, sees_truth = "judge", True

        def accepts(self, episode):
            return episode.case.key == "tall"

    envs = make_envs(5, cases=small_cases, **OPTIONS)
    recorder = VectorRecorder(envs, tmp_path, seed=0, policy=Judge())
    recorder.reset(options={"case": [case.key for case in small_cases]})
    recorder.step(np.tile(envs.codec.stop_row, (5, 1)))
    recorder.close()
    store = TrajectoryStore(tmp_path)
    assert {t.key.case: t.accepted for t in store} == {c.key: c.key == "tall" for c in small_cases}
    one = store.episode(EpisodeKey("tall", 0, 0)).facts
    assert (one.policy, one.sees_truth, one.backbone) == ("judge", True, "ellipse")
    assert one.options["max_steps"] == 4 and one.options["reward"] == "dice_gain"


def test_only_medseg_environments(tmp_path):
    with pytest.raises(TrajectoryError, match="only MedSeg"):
        Recorder(gym.make("CartPole-v1"), tmp_path)


def test_a_full_disk_leaves_no_hole_in_an_episode(small_cases, tmp_path, monkeypatch):
    options = {"cases": small_cases, "backbone": "ellipse", "image_size": 32, "max_steps": 6}
    envs = VectorRecorder(gym.make_vec("MedSeg-v0", num_envs=3, **options), tmp_path, seed=0)
    envs.reset(seed=0)
    envs.action_space.seed(0)

    def full(*args):
        raise OSError(28, "No space left on device")

    for number in range(20):
        if number in (2, 5, 11):
            with monkeypatch.context() as patch:
                patch.setattr("medseg_gym.trajectories.store.writer.os.write", full)
                with pytest.raises(TrajectoryError, match="make room"):
                    envs.step(envs.action_space.sample())
        else:
            envs.step(envs.action_space.sample())
    envs.close()
    store = TrajectoryStore(tmp_path)
    cut = list(store.episodes(unfinished=True))
    assert len(store) and cut
    for one in [*store, *cut]:
        # Replaying agrees step by step only where no step is missing.
        episode = rebuild_episode(one)
        assert [step.dice for step in episode.steps] == pytest.approx([s.dice for s in one.steps])
        assert [s.valid for s in episode.steps] == [s.valid for s in one.steps]
    assert not replay_store(store, cases=list(small_cases)).mismatches
