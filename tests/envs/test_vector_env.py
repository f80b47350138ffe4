import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics

import medseg_gym  # noqa: F401
from medseg_gym.backbones import SamBackbone, embedding_cache
from medseg_gym.cases import CaseError
from medseg_gym.errors import EpisodeError, MedSegError
from medseg_gym.policy import make_envs
from medseg_gym.prompts import AddBox, AddPoint, PromptError, Stop
from medseg_gym.testing.check_vector_env import check_vector_env

MODES = ["next_step", "same_step", "disabled"]
ATOL = 1e-3  # Dice and reward of one batch size against another; see the architecture's promise


def make_vec(num_envs: int = 4, **options):
    options = {"backbone": "ellipse", "image_size": 32, "bins": 24, **options}
    return gym.make_vec("MedSeg-v0", num_envs=num_envs, **options)


def encode(envs, *prompts) -> np.ndarray:
    return np.stack([envs.unwrapped.codec.encode(prompt) for prompt in prompts])


def assert_same(first, second, context=""):
    for key in first:
        np.testing.assert_array_equal(first[key], second[key], err_msg=f"{context} {key}")


@pytest.mark.parametrize("mode", MODES)
def test_the_laws_of_vector_envs_hold_exactly(mode, small_cases):
    envs = make_vec(3, cases=small_cases, autoreset_mode=mode, max_steps=3)
    report = check_vector_env(envs)
    assert "passed" in str(report)
    envs.close()


@pytest.mark.parametrize("mode", MODES)
def test_the_laws_hold_with_a_time_limit(mode, small_cases):
    envs = make_vec(3, cases=small_cases, autoreset_mode=mode, max_steps=6, max_episode_steps=3)
    check_vector_env(envs)
    envs.close()


def test_the_laws_hold_for_a_learned_backbone_within_rounding(small_cases, tiny_backbone):
    envs = make_vec(3, cases=small_cases, backbone=tiny_backbone, max_steps=3)
    check_vector_env(envs, atol=ATOL)
    envs.close()


def test_it_works_with_no_argument():
    envs = gym.make_vec("MedSeg-v0", num_envs=2)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert envs.unwrapped.backbone.name == "pocket"
    assert envs.observation_space["image"].shape == (2, 128, 128, 3)
    envs.close()


# one slot against another, vector against single -----------------------------------------


def rollout(envs, seeds, steps: int, action_seed: int = 5):
    """Observations, rewards, ends and infos of `steps` random steps, actions by slot seed."""
    observation, info = envs.reset(seed=list(seeds))
    generators = [np.random.default_rng([action_seed, seed]) for seed in seeds]
    result = [(observation, None, None, info)]
    for _ in range(steps):
        actions = np.stack([g.integers(envs.single_action_space.nvec) for g in generators])
        observation, rewards, terminations, _, info = envs.step(actions)
        result.append((observation, rewards, terminations, info))
    return result


def test_slot_permutation_permutes_results_bit_by_bit(small_cases, tiny_backbone):
    seeds, order = [3, 1, 4, 15, 9], [4, 2, 0, 3, 1]
    options = {"cases": small_cases, "backbone": tiny_backbone}
    straight = rollout(make_vec(5, **options), seeds, 12)
    permuted = rollout(make_vec(5, **options), [seeds[i] for i in order], 12)
    for step, (a, b) in enumerate(zip(straight, permuted, strict=True)):
        assert_same({k: v[order] for k, v in a[0].items()}, b[0], f"step {step}")
        if step:
            np.testing.assert_array_equal(a[1][order], b[1])
            np.testing.assert_array_equal(a[2][order], b[2])
        np.testing.assert_array_equal(a[3]["dice"][order], b[3]["dice"])
        assert (a[3]["case"][order] == b[3]["case"]).all()


def test_repeated_seeds_repeat_everything(small_cases, tiny_backbone):
    options = {"cases": small_cases, "backbone": tiny_backbone}
    first = rollout(make_vec(4, **options), [7, 8, 9, 10], 10)
    second = rollout(make_vec(4, **options), [7, 8, 9, 10], 10)
    for a, b in zip(first, second, strict=True):
        assert_same(a[0], b[0])
        np.testing.assert_array_equal(a[3]["dice"], b[3]["dice"])


@pytest.mark.parametrize("backbone", ["ellipse", "tiny"])
def test_a_slot_is_a_single_env(backbone, small_cases, tiny_backbone, request):
    chosen = tiny_backbone if backbone == "tiny" else backbone
    atol = ATOL if backbone == "tiny" else 0
    options = {"cases": small_cases, "backbone": chosen, "image_size": 32, "bins": 24}
    seeds = [20, 21, 22]
    envs = make_vec(3, autoreset_mode="disabled", **options)
    singles = [gym.make("MedSeg-v0", **options).unwrapped for _ in seeds]
    observation, info = envs.reset(seed=20)
    for slot, (single, seed) in enumerate(zip(singles, seeds, strict=True)):
        alone, alone_info = single.reset(seed=seed)
        assert alone_info["case"] == info["case"][slot]
        assert_same({k: v[slot] for k, v in observation.items()}, alone)
    generator = np.random.default_rng(0)
    ended = np.zeros(3, bool)
    for _ in range(5):
        actions = np.stack([generator.integers(envs.single_action_space.nvec) for _ in seeds])
        observation, rewards, terminations, _, info = envs.step(actions)
        for slot, single in enumerate(singles):
            if ended[slot]:
                continue
            alone, reward, terminated, _, alone_info = single.step(actions[slot])
            for key in ("image", "prompts", "target", "steps_left"):
                np.testing.assert_array_equal(observation[key][slot], alone[key])
            for key in ("tool", "valid", "error", "case", "stopped", "cost"):
                assert info[key][slot] == alone_info[key]
            assert terminated == terminations[slot]
            assert rewards[slot] == pytest.approx(reward, abs=atol)
            assert info["dice"][slot] == pytest.approx(alone_info["dice"], abs=atol)
            if not atol:
                np.testing.assert_array_equal(observation["mask"][slot], alone["mask"])
        ended |= terminations
        if ended.all():
            break


# what a vector step costs ----------------------------------------------------------------


class CountingSam(SamBackbone):
    """The real model; counts its calls."""

    def __init__(self, model):
        super().__init__(model)
        self.decodes = self.encoded = 0

    def encode(self, images):
        self.encoded += len(images)
        return super().encode(images)

    def decode(self, rows):
        self.decodes += 1
        return super().decode(rows)


@pytest.mark.parametrize("mode", MODES[:2])
def test_one_decoder_call_a_step_and_one_encode_an_image(mode, small_cases, tiny_sam):
    backbone = CountingSam(tiny_sam)
    envs = make_vec(8, cases=small_cases, backbone=backbone, autoreset_mode=mode)
    envs.reset(seed=0)
    generator = np.random.default_rng(0)
    for step in range(40):
        prompts = [
            AddBox(0.1, 0.2, 0.8, 0.7) if generator.random() < 0.5 else AddPoint(0.6, 0.4)
            for _ in range(8)
        ]
        before = backbone.decodes
        envs.step(encode(envs, *prompts))
        assert backbone.decodes - before <= 1, step
    distinct = {case.content_hash for case in small_cases}
    assert backbone.encoded == len(distinct) < len(small_cases)
    counters = embedding_cache(backbone).counters
    assert counters.encodes == len(distinct) and counters.hits > 20


# autoreset -------------------------------------------------------------------------------


def test_next_step_ignores_the_action_after_an_end(small_cases):
    envs = make_vec(2, cases=small_cases, max_steps=3)
    envs.reset(seed=0)
    _, _, terminations, _, info = envs.step(encode(envs, Stop(), AddPoint(0.6, 0.4)))
    assert terminations.tolist() == [True, False] and info["stopped"].tolist() == [True, False]
    observation, rewards, terminations, _, info = envs.step(encode(envs, Stop(), Stop()))
    assert terminations.tolist() == [False, True] and rewards[0] == 0
    assert observation["steps_left"][0] == 1 and info["tool"][0] == "" and info["tool"][1] == "stop"


BAD_ACTIONS = {
    "minus infinity": lambda good: np.full(good.shape, -np.inf),
    "NaN": lambda good: np.full(good.shape, np.nan),
    "floats": lambda good: good.astype(float),
    "bools": lambda good: good.astype(bool),
    "objects": lambda good: good.astype(object),
    "negative": lambda good: good - 7,
    "too large": lambda good: good + 1000,
    "too large in an unused entry": lambda good: good + np.array([0, 0, 0, 0, 1000]),
    "rows of other lengths": lambda good: [*good.tolist(), [1]][1:],
    "another shape": lambda good: good[:, :4],
    "None": lambda good: None,
}


@pytest.mark.parametrize("name", BAD_ACTIONS)
@pytest.mark.parametrize("mode", MODES)
def test_actions_are_checked_alike_on_every_step(mode, name, small_cases):
    envs = make_vec(2, cases=small_cases, autoreset_mode=mode, max_steps=1)
    envs.reset(seed=0)
    good = encode(envs, AddPoint(0.5, 0.4), Stop())
    bad = BAD_ACTIONS[name](good)
    for _ in range(4):  # running, all ended or reset, and so on
        before = [None if e is None else len(e.steps) for e in envs.unwrapped.episodes]
        with pytest.raises(MedSegError, match="action"):
            envs.step(bad)
        after = [None if e is None else len(e.steps) for e in envs.unwrapped.episodes]
        assert before == after
        envs.step(good)


def test_one_bad_action_among_slots_that_have_ended_is_named(small_cases):
    envs = make_vec(3, cases=small_cases, max_steps=5)
    envs.reset(seed=0)
    envs.step(encode(envs, Stop(), AddPoint(0.5, 0.4), Stop()))
    actions = encode(envs, Stop(), Stop(), Stop())
    actions[2, 1] = np.iinfo(np.int64).min  # what minus infinity becomes when it is cast
    with pytest.raises(PromptError, match="slot 2"):
        envs.step(actions)


def test_same_step_keeps_the_last_observation_and_info(small_cases):
    envs = make_vec(3, cases=small_cases, autoreset_mode="same_step")
    _, start = envs.reset(seed=0, options={"case": "sq"})
    envs.step(encode(envs, *[AddBox(0.3, 0.1, 0.9, 0.7)] * 3))
    observation, rewards, terminations, _, info = envs.step(
        encode(envs, Stop(), AddPoint(0.6, 0.4), Stop())
    )
    assert terminations.tolist() == [True, False, True]
    assert info["_final_obs"].tolist() == [True, False, True]
    final = info["final_obs"][0]
    assert envs.single_observation_space.contains(final) and final["prompts"][..., 2].any()
    assert not observation["prompts"][0].any() and observation["prompts"][1].any()
    assert info["final_info"]["stopped"].tolist() == [True, False, True]
    assert info["final_info"]["case"][0] == start["case"][0]
    assert info["final_info"]["dice"][2] > 0 and info["tool"][0] == "" and rewards[0] == 0


def test_disabled_slots_idle_until_they_are_reset(small_cases, tiny_sam):
    backbone = CountingSam(tiny_sam)
    envs = make_vec(2, cases=small_cases, backbone=backbone, autoreset_mode="disabled")
    envs.reset(seed=0)
    envs.step(encode(envs, Stop(), AddPoint(0.6, 0.4)))
    done = backbone.decodes
    before, *_ = envs.step(encode(envs, AddPoint(0.1, 0.1), Stop()))
    assert backbone.decodes == done
    observation, rewards, terminations, _, info = envs.step(encode(envs, Stop(), Stop()))
    assert terminations.all() and not rewards.any() and "dice" not in info
    assert_same(before, observation)
    mask = np.array([False, True])
    observation, info = envs.reset(options={"reset_mask": mask, "case": [None, "tall"]})
    assert info["case"][1] == "tall" and info["_case"].tolist() == [False, True]
    assert_same({k: v[:1] for k, v in before.items()}, {k: v[:1] for k, v in observation.items()})
    _, _, terminations, _, info = envs.step(encode(envs, Stop(), AddPoint(0.6, 0.4)))
    assert terminations.tolist() == [True, False] and info["_dice"].tolist() == [False, True]


def test_a_time_limit_truncates(small_cases):
    envs = make_vec(2, cases=small_cases, max_episode_steps=2, max_steps=5)
    envs.reset(seed=0)
    actions = encode(envs, AddPoint(0.6, 0.4), AddPoint(0.6, 0.4))
    assert not envs.step(actions)[3].any()
    _, _, terminations, truncations, _ = envs.step(actions)
    assert truncations.all() and not terminations.any()


# reset -----------------------------------------------------------------------------------


def test_cases_and_seeds_by_slot(small_cases):
    envs = make_vec(3, cases=small_cases)
    _, info = envs.reset(options={"case": "tall"})
    assert info["case"].tolist() == ["tall"] * 3
    _, info = envs.reset(options={"case": ["sq", "wide", "tall"]})
    assert info["case"].tolist() == ["sq", "wide", "tall"]
    cases = envs.reset(seed=11)[1]["case"].tolist()
    assert envs.reset(seed=[11, 12, 13])[1]["case"].tolist() == cases
    # A given case leaves the generator alone.
    envs.reset(seed=11, options={"case": "sq"})
    assert envs.reset()[1]["case"].tolist() == cases


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"seed": [1, 2]}, MedSegError, "one entry per slot"),
        ({"options": {"case": ["tall"]}}, MedSegError, "one entry per slot"),
        ({"options": {"case": "nobody"}}, CaseError, "nobody"),
        ({"options": {"reset_mask": np.ones(2, bool)}}, MedSegError, "reset_mask"),
        ({"options": {"reset_mask": np.ones(3, int)}}, MedSegError, "reset_mask"),
        ({"options": {"reset_mask": np.zeros(3, bool)}}, MedSegError, "reset_mask"),
        ({"options": {"reset_msk": np.ones(3, bool)}}, MedSegError, "reset_msk"),
    ],
)
def test_bad_resets_are_refused(arguments, error, words, small_cases):
    envs = make_vec(3, cases=small_cases)
    with pytest.raises(error, match=words):
        envs.reset(**arguments)


def test_use_out_of_order_is_refused(small_cases):
    envs = make_vec(2, cases=small_cases)
    with pytest.raises(EpisodeError, match="reset"):
        envs.step(np.zeros((2, 5), int))
    with pytest.raises(MedSegError, match="reset all slots"):
        envs.reset(options={"reset_mask": np.array([True, False])})
    envs.reset(seed=0)
    with pytest.raises(MedSegError, match="shape"):
        envs.step(np.zeros((3, 5), int))
    with pytest.raises(PromptError, match="slot 1"):
        envs.step(np.array([[0, 0, 0, 0, 0], [9, 0, 0, 0, 0]]))
    with pytest.raises(MedSegError, match="autoreset_mode"):
        make_vec(2, cases=small_cases, autoreset_mode="sometimes")


def test_render_and_statistics(small_cases):
    envs = make_vec(2, cases=small_cases, render_mode="rgb_array")
    envs.reset(seed=0)
    frames = envs.render()
    assert len(frames) == 2 and frames[0].dtype == np.uint8
    envs = RecordEpisodeStatistics(make_vec(2, cases=small_cases))
    envs.reset(seed=0)
    info = envs.step(encode(envs, Stop(), AddPoint(0.6, 0.4)))[4]
    assert info["episode"]["l"].tolist() == [1, 0]


def test_rows_of_another_length_beside_a_slot_that_nobody_looks_at_are_refused() -> None:
    envs = make_envs(2, cases="phantoms:fundus", backbone="ellipse")
    with pytest.raises(MedSegError, match="2 rows of 5 integers"):
        envs.view.idle(np.zeros((2, 6), np.int64), [1])
    envs.close()
