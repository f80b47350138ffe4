"""MedSegVolume-v0: the checks of gymnasium and of vector envs, and what an observation shows."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

import medseg_gym  # noqa: F401
from medseg_gym.annotators.volumes import KeySliceBox
from medseg_gym.backbones.families.ellipse import EllipseBackbone
from medseg_gym.cases import VolumeCase
from medseg_gym.episodes.metrics import dice
from medseg_gym.errors import BackboneError, CaseError, CaseFailed, MedSegError
from medseg_gym.policy import GivenUp, Played, make_envs, play_or_give_up
from medseg_gym.prompts import AddBox, AddPoint, Clear, Stop, Undo
from medseg_gym.prompts.volumes import Look, Propagate, SlicePrompt
from medseg_gym.testing.check_vector_env import check_vector_env

BOX = AddBox(0.25, 0.25, 0.75, 0.75)
SMALL = {"backbone": "ellipse", "image_size": 36, "overview_size": 36, "bins": 24, "max_steps": 3}


def volumes() -> list[VolumeCase]:
    """Three volumes of different shapes."""
    made = []
    for number, shape in enumerate([(7, 24, 30), (5, 32, 32), (12, 20, 16)]):
        rng = np.random.default_rng(number)
        mask = np.zeros(shape, bool)
        mask[2:4, 6:14, 5:12] = True
        image = rng.integers(0, 200, shape).astype(np.uint8)
        made.append(VolumeCase(f"v{number}", image, mask, f"organ {number % 2}"))
    return made


def make(**options):
    return gym.make("MedSegVolume-v0", **{**SMALL, "cases": volumes(), **options})


@pytest.mark.parametrize("mode", ["next_step", "same_step", "disabled"])
def test_the_laws_of_vector_envs_hold_exactly(mode):
    envs = gym.make_vec(
        "MedSegVolume-v0", num_envs=3, cases=volumes(), autoreset_mode=mode, **SMALL
    )
    check_vector_env(envs)
    envs.close()


def test_gymnasium_and_stable_baselines_accept_it():
    env = make().unwrapped
    check_env(env)
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    checker.check_env(env, warn=False)
    env.close()


@pytest.mark.slow
def test_the_id_works_with_no_argument():
    env = gym.make("MedSegVolume-v0").unwrapped
    _, start = env.reset(seed=1)
    expert = KeySliceBox(env.codec)
    paid = 0.0
    for _ in range(2):  # a box on the key slice, and propagate
        _, reward, _, _, info = env.step(expert.act({}, env.episodes)[0])
        paid += reward
    assert info["tool"] == "propagate" and info["mask_slices"] > 1 and info["dice"] > 0.5
    assert paid == pytest.approx(info["dice"] - start["dice"] - 0.02)
    assert env.backbone.name == "pocket"


def test_a_learner_with_several_inputs_trains_on_it():
    sb3 = pytest.importorskip("stable_baselines3")
    model = sb3.PPO(
        "MultiInputPolicy", make(slices=8), n_steps=4, batch_size=4, n_epochs=1, device="cpu"
    )
    model.learn(8)
    assert model.num_timesteps == 8


def test_the_observation_shows_the_slice_in_view_and_the_whole_from_three_sides():
    env = make(max_steps=10, slices=7).unwrapped
    observation, info = env.reset(options={"case": "v0"})
    case = env.source[0]
    assert info["case"] == "v0" and info["slice"] == 3
    assert observation["slice"] == pytest.approx(3.5 / 7) and observation["target"] == 1
    assert not observation["mask"].any() and not observation["overview_mask"].any()

    def step(prompt):
        return env.step(env.codec.encode(prompt, case.depth))

    observation, _, _, _, info = step(SlicePrompt(5, BOX))
    assert info["slice"] == 5 and observation["mask"].any() and observation["prompts"][..., 2].any()
    sides = observation["overview_mask"]
    assert [int(sides[..., i].any(axis=1).sum()) > 8 for i in range(3)] == [True, False, False]
    observation, *_ = step(Look(1))
    assert not observation["mask"].any() and not observation["prompts"].any()
    assert (observation["overview_mask"] == sides).all()
    observation, reward, *_, info = step(Propagate())
    assert info["tool"] == "propagate" and observation["steps_left"] == pytest.approx(0.7)
    assert reward == pytest.approx(info["dice_gain"] - 0.01)
    _, _, terminated, truncated, info = step(Stop())
    assert terminated and not truncated and info["turns"] == 4
    env.close()


_PROMPTS = st.one_of(
    st.builds(SlicePrompt, st.integers(0, 11), st.from_type(AddBox)),
    st.builds(SlicePrompt, st.integers(0, 11), st.from_type(AddPoint)),
    st.builds(Look, st.integers(0, 11)),
    st.sampled_from([Propagate(), Propagate(), Undo(), Clear(), Stop()]),
)


@given(prompts=st.lists(_PROMPTS, min_size=1, max_size=8), key=st.sampled_from(["v0", "v2"]))
def test_the_return_is_what_was_gained_less_what_it_cost(prompts, key):
    env = make(max_steps=8, slices=12).unwrapped
    _, start = env.reset(options={"case": key})
    depth, total, cost = env.episode.case.depth, 0.0, 0.0
    for prompt in prompts:
        index = getattr(prompt, "slice", 0)
        if index >= depth:
            continue
        _, reward, terminated, _, info = env.step(env.codec.encode(prompt, depth))
        total, cost = total + reward, cost + info["cost"]
        assert info["cost"] == pytest.approx(0.0 if prompt.tool == "stop" else 0.01)
        assert info["dice"] == pytest.approx(dice(env.episode.mask(), env.episode.case.mask))
        if terminated:
            assert info["episode_return"] == pytest.approx(total)
            break
    assert total == pytest.approx(env.episode.dice - start["dice"] - cost)


def test_look_reveals_a_slice_and_changes_no_mask():
    env = make(max_steps=9, slices=7).unwrapped
    env.reset(options={"case": "v0"})
    env.step(env.codec.encode(SlicePrompt(3, BOX), 7))
    seen = []
    for index in range(7):
        before = env.episode.state
        observation, reward, *_, info = env.step(env.codec.encode(Look(index), 7))
        assert env.episode.state is before and reward == pytest.approx(-0.01)
        assert info["slice"] == index and observation["slice"][0] == pytest.approx(
            (index + 0.5) / 7
        )
        assert observation["mask"].any() == observation["prompts"].any() == (index == 3)
        seen.append(observation["image"])
    assert len({image.tobytes() for image in seen}) == 7


def test_frames_show_the_slice_and_have_one_shape():
    envs = gym.make_vec(
        "MedSegVolume-v0", num_envs=3, cases=volumes(), render_mode="rgb_array", **SMALL
    )
    envs.reset(options={"case": ["v0", "v1", "v2"]})
    codec = envs.unwrapped.codec
    envs.step(np.stack([codec.encode(SlicePrompt(2, AddPoint(0.4, 0.4)), 5)] * 3))
    frames = envs.render()
    assert len({frame.shape for frame in frames}) == 1 and frames[0].std() > 10
    envs.close()


def test_propagation_of_all_slots_shares_decodes():
    envs = gym.make_vec("MedSegVolume-v0", num_envs=3, cases=volumes()[:1], **SMALL).unwrapped
    envs.reset()
    calls = []
    decode = envs.engine.decoder.decode
    envs.engine.decoder.decode = lambda requests: calls.append(len(requests)) or decode(requests)
    envs.step(np.stack([envs.codec.encode(SlicePrompt(3, BOX), 7)] * 3))
    envs.step(np.stack([envs.codec.encode(Propagate(), 7)] * 3))
    assert [count for count in calls if count][:2] == [3, 6]


def test_slots_that_nobody_looks_at_stop_at_no_cost():
    envs = gym.make_vec("MedSegVolume-v0", num_envs=3, cases=volumes(), **SMALL).unwrapped
    box = envs.codec.encode(SlicePrompt(2, BOX), 7)
    rows = np.stack([box] * 3)
    quiet = envs.view.idle(rows, [0, 2])
    stop = envs.codec.tools.index("stop")
    assert quiet[:, 0].tolist() == [stop, 0, stop] and (quiet[1] == box).all()
    assert (quiet[[0, 2], 1:] == 0).all() and (rows == box).all()  # what was given stays
    assert envs.view.idle(rows, []) is rows
    # A slot that was given up may hold its error instead of a row.
    given_up = envs.view.idle([box, CaseFailed("the server is gone"), box], [1])
    assert given_up.shape == (3, 6) and given_up[1, 0] == stop and (given_up[2] == box).all()
    envs.close()
    tools = ["box", "propagate"]
    bare = gym.make_vec("MedSegVolume-v0", num_envs=1, cases=volumes(), tools=tools, **SMALL)
    assert bare.unwrapped.view.idle(rows[:1], [0]) is not None  # nothing to stop with: played on
    assert (bare.unwrapped.view.idle(rows[:1], [0]) == rows[:1]).all()
    bare.close()


def test_a_volume_that_a_policy_gives_up_keeps_nobody_from_the_others():
    class Moody:
        name, sees_truth = "moody", False

        def reset(self, slots, generators):
            self.turn = 0

        def act(self, observations):
            self.turn += 1
            box = envs.codec.encode(SlicePrompt(2, BOX), 7)
            given_up = CaseFailed("the server refused this volume")
            return [box, given_up if self.turn == 1 else np.full(6, -1)]

    envs = make_envs(2, "MedSegVolume-v0", cases=volumes(), **SMALL)
    ((first, second),) = play_or_give_up(envs, Moody(), ["v0", "v1"])
    assert isinstance(first, Played) and len(first.rewards) == SMALL["max_steps"]
    assert isinstance(second, GivenUp) and "refused" in str(second.error)
    assert [step.tool for step in second.episode.steps] == ["stop"]  # and it idles from then on
    envs.close()


def test_what_cannot_be_used_is_refused():
    with pytest.raises(MedSegError, match="no argument 'prompt_memory'"):
        make(prompt_memory="newest")
    with pytest.raises(MedSegError, match="overview_size"):
        make(overview_size=4)
    with pytest.raises(CaseError, match="no truth"):
        case = volumes()[0]
        unknown = VolumeCase("u", case.image, case.mask & False, "x", truth_known=False)
        make(cases=[unknown]).reset()
    with pytest.raises(CaseError, match="empty"):
        make(cases=[])
    with pytest.raises(CaseError, match="no volume 'w'"):
        make().reset(options={"case": "w"})

    boxes_alone = EllipseBackbone()
    boxes_alone.prompt_kinds = frozenset({"box"})
    with pytest.raises(BackboneError, match="'propagate'"):
        make(backbone=boxes_alone)
