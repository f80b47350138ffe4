import copy
import os
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import FlattenObservation, RecordEpisodeStatistics, RecordVideo
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.modeling import Sam

import medseg_gym  # noqa: F401
from medseg_gym.backbones import Embedding, Prediction, SamBackbone
from medseg_gym.cases import Case, CaseError, CaseList, load_cases
from medseg_gym.errors import BackboneError, CheckpointError, EpisodeError, MedSegError
from medseg_gym.prompts import TOOLS, AddBox, AddPoint, PromptError, Stop, Undo, encode_tool_call

IDS = [name for name in gym.registry if name.startswith("MedSeg")]


def make(**options) -> gym.Env:
    return gym.make("MedSeg-v0", **{"backbone": "ellipse", **options})


def disc_case(key: str = "disc", size: tuple[int, int] = (48, 64), empty: bool = False) -> Case:
    height, width = size
    y, x = np.mgrid[:height, :width]
    mask = (y - height / 2) ** 2 + (x - width / 3) ** 2 < (height / 5) ** 2
    image = np.where(mask, 200, 40).astype(np.uint8)[..., None].repeat(3, axis=2)
    return Case(key, image, mask & (not empty), "disc", "CT", synthetic=True)


def act(env: gym.Env, prompt) -> tuple:
    if "Chat" in env.spec.id:
        return env.step(encode_tool_call(prompt))
    return env.step(env.unwrapped.codec.encode(prompt))


@pytest.mark.parametrize("name", IDS)
def test_check_env_passes_without_a_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make(name, backbone="ellipse", render_mode="rgb_array")
        check_env(env.unwrapped)
        env.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in IDS if "Volume" not in name])
def test_an_id_works_with_no_argument(name):
    env = gym.make(name)
    observation, info = env.reset(seed=1)
    assert env.observation_space.contains(observation)
    truth = env.unwrapped.episode.case.mask
    rows, columns = np.nonzero(truth)
    height, width = truth.shape
    box = AddBox(
        columns.min() / width, rows.min() / height, columns.max() / width, rows.max() / height
    )
    _, reward, _, _, after = act(env, box)
    assert after["dice"] > 0.3 and reward == pytest.approx(after["dice"] - info["dice"] - 0.01)
    assert env.unwrapped.backbone.name == "pocket"


def test_observation_says_what_was_done():
    env = make(cases=[disc_case()], image_size=64, bins=64)
    observation, _ = env.reset(seed=0)
    assert not observation["mask"].any() and not observation["prompts"].any()
    assert observation["steps_left"] == 1 and observation["target"] == 1
    observation, *_ = act(env, AddBox(0.25, 0.25, 0.5, 0.75))
    box = observation["prompts"][..., 2]
    # The box covers the cells it names, give or take the pixel of its border.
    assert box[16:48, 16:32].all()
    assert not box[:15].any() and not box[50:].any() and not box[:, :15].any()
    observation, *_ = act(env, AddPoint(0.8, 0.1))
    observation, *_ = act(env, AddPoint(0.1, 0.9, positive=False))
    assert observation["prompts"][6, 51, 0] == 255 and observation["prompts"][6, 51, 1] == 0
    assert observation["prompts"][57, 6, 1] == 255 and observation["prompts"][57, 6, 0] == 0
    assert observation["steps_left"] == pytest.approx(0.4)
    assert set(np.unique(observation["mask"])) == {0, 255}
    mask = env.unwrapped.episode.state.mask.numpy()
    assert abs((observation["mask"] > 0).mean() - mask.mean()) < 0.03


def test_the_observation_is_the_squashed_image_and_never_the_truth():
    seen = Case("a", disc_case().image, disc_case().mask, "disc")
    blind = Case("a", disc_case().image, ~disc_case().mask, "disc")
    observations = []
    for case in (seen, blind):
        env = make(cases=[case])
        observations.append(env.reset(seed=0)[0])
        observations.append(act(env, AddBox(0.1, 0.1, 0.6, 0.6))[0])
    for key in observations[0]:
        np.testing.assert_array_equal(observations[0][key], observations[2][key])
        np.testing.assert_array_equal(observations[1][key], observations[3][key])
    bright = observations[0]["image"][..., 0] > 120
    assert abs(bright.mean() - disc_case().mask.mean()) < 0.02


def test_targets_outside_the_vocabulary_are_other():
    env = make(cases=[disc_case()], targets=["liver", "spleen"])
    observation, _ = env.reset(seed=0)
    assert observation["target"] == 0 and env.observation_space["target"].n == 3
    env = make(cases=[disc_case()], targets=["liver", "disc"])
    assert env.reset(seed=0)[0]["target"] == 2


def test_running_out_of_steps_terminates_and_stop_is_free():
    env = make(cases=[disc_case()], max_steps=2)
    env.reset(seed=0)
    _, _, terminated, truncated, info = act(env, AddPoint(0.3, 0.5))
    assert not terminated
    _, _, terminated, truncated, info = act(env, AddPoint(0.3, 0.4))
    assert terminated and not truncated and not info["stopped"]
    env.reset(seed=0)
    _, reward, terminated, truncated, info = act(env, Stop())
    assert terminated and not truncated and info["stopped"] and reward == 0 and info["cost"] == 0
    with pytest.raises(EpisodeError, match="over"):
        act(env, Stop())


@pytest.mark.parametrize(
    ("prompt", "word"), [(Undo(), "undo"), (AddBox(0.5, 0.2, 0.5, 0.9), "no area")]
)
def test_invalid_actions_change_nothing_and_say_so(prompt, word):
    env = make(cases=[disc_case()])
    before, _ = env.reset(seed=0)
    after, reward, terminated, _, info = act(env, prompt)
    assert not info["valid"] and word in info["error"] and reward == pytest.approx(-0.01)
    assert not terminated and info["cost"] == 0.01
    for key in ("image", "mask", "prompts", "target"):
        np.testing.assert_array_equal(before[key], after[key])
    assert after["steps_left"] == pytest.approx(0.8)


def test_undo_takes_back_the_last_add_in_every_observation():
    env = make(cases=[disc_case()])
    env.reset(seed=0)
    first, *_ = act(env, AddBox(0.1, 0.2, 0.5, 0.8))
    act(env, AddPoint(0.9, 0.9))
    undone, _, _, _, info = act(env, Undo())
    assert info["valid"]
    np.testing.assert_array_equal(first["mask"], undone["mask"])
    np.testing.assert_array_equal(first["prompts"], undone["prompts"])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), empty=st.booleans(), max_steps=st.integers(1, 8))
def test_the_return_telescopes_for_any_actions(seed, empty, max_steps):
    env = make(cases=[disc_case(empty=empty)], max_steps=max_steps, bins=24).unwrapped
    _, info = env.reset(seed=seed)
    start = info["dice"]
    assert start == (1.0 if empty else 0.0)
    env.action_space.seed(seed)
    total = cost = 0.0
    terminated = False
    while not terminated:
        _, reward, terminated, _, info = env.step(env.action_space.sample())
        total, cost = total + reward, cost + info["cost"]
    assert total == pytest.approx(info["dice"] - start - cost, abs=1e-12)


def test_a_named_case_is_played_and_an_unknown_one_refused():
    env = make(cases=[disc_case("a"), disc_case("b")])
    for key in ("b", "a", "b"):
        assert env.reset(options={"case": key})[1]["case"] == key
    with pytest.raises(CaseError, match="'c'"):
        env.reset(options={"case": "c"})
    with pytest.raises(MedSegError, match="'cases'"):
        env.reset(options={"cases": "a"})


def test_the_seed_decides_the_cases():
    def keys(seed):
        env = make(split="train")
        return [env.reset(seed=seed if i == 0 else None)[1]["case"] for i in range(6)]

    assert keys(3) == keys(3) and keys(3) != keys(4) and len(set(keys(3))) > 2


def test_two_specs_share_one_model_in_memory():
    first = gym.make("MedSeg-v0", backbone="ellipse")
    second = gym.make("MedSeg-v0", backbone="ellipse")
    assert first.unwrapped.backbone is second.unwrapped.backbone
    assert first.unwrapped.source is second.unwrapped.source
    again = gym.make(first.spec)
    assert again.unwrapped.backbone is first.unwrapped.backbone


def test_objects_in_a_spec_survive_its_deep_copies(tiny_sam: Sam):
    backbone, source = SamBackbone(tiny_sam), CaseList([disc_case()])
    env = gym.make("MedSeg-v0", backbone=backbone, cases=source)
    spec = copy.deepcopy(env.spec)
    again = gym.make(spec)
    assert again.unwrapped.backbone is backbone and again.unwrapped.source is source


def test_the_usual_wrappers_work(tmp_path):
    env = RecordVideo(
        RecordEpisodeStatistics(make(cases=[disc_case()], render_mode="rgb_array")),
        str(tmp_path / "videos"),
        disable_logger=True,
    )
    env.reset(seed=0)
    act(env, AddPoint(0.3, 0.5))
    *_, info = act(env, Stop())
    env.close()
    assert info["episode"]["l"] == 2
    assert [f.suffix for f in (tmp_path / "videos").iterdir() if f.stat().st_size > 500] == [".mp4"]
    flat = FlattenObservation(make(cases=[disc_case()], image_size=16))
    observation, _ = flat.reset(seed=0)
    assert flat.observation_space.contains(observation)


def test_render_modes(monkeypatch):
    env = make(cases=[disc_case()], render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    act(env, AddBox(0.1, 0.1, 0.9, 0.9))
    after = env.render()
    assert before.dtype == np.uint8 and before.shape == after.shape and (before != after).any()
    monkeypatch.setitem(os.environ, "MPLBACKEND", "agg")
    human = make(cases=[disc_case()], render_mode="human")
    human.reset(seed=0)  # without a display: nothing to see, nothing raised
    act(human, Stop())
    human.close()


def test_an_action_outside_the_space_is_a_programmers_error():
    env = make(cases=[disc_case()]).unwrapped
    env.reset(seed=0)
    with pytest.raises(PromptError, match="outside the action space"):
        env.step(np.array([6, 0, 0, 0, 0]))
    with pytest.raises(PromptError, match="integer"):
        env.step(np.array([0.5, 0, 0, 0, 0]))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"cases": "nowhere"}, CaseError, "unknown case spec"),
        ({"split": "dev"}, CaseError, "train, val, test"),
        ({"backbone": "nobody"}, BackboneError, "unknown backbone"),
        ({"backbone": "sam_vit_b"}, CheckpointError, "sam_vit_b_01ec64.pth"),
        ({"backbone": "lite_medsam", "checkpoint": "no.pth"}, CheckpointError, "no.pth"),
        ({"device": "cuda:99"}, BackboneError, "cuda:99"),
        ({"reward": "glory"}, MedSegError, "dice_gain"),
        ({"tools": ["box", "lasso"]}, PromptError, "lasso"),
        ({"image_size": 4}, MedSegError, "image_size"),
        ({"max_steps": 0}, EpisodeError, "max_steps"),
        ({"multimask": "sometimes"}, EpisodeError, "multimask"),
        ({"prompt_memory": "none"}, EpisodeError, "prompt_memory"),
        ({"stepps": 3}, MedSegError, "stepps"),
    ],
)
def test_bad_arguments_are_refused_before_any_episode(options, error, words):
    with pytest.raises(error, match=words):
        make(**options)


class BoxesOnly:
    name, device = "boxes-only", torch.device("cpu")
    prompt_kinds = trained_kinds = frozenset({"box"})
    takes_mask_input = False

    def encode(self, images):
        return [Embedding((), image.shape[:2], (8, 8)) for image in images]

    def decode(self, rows):
        return Prediction(torch.ones(len(rows), 8, 8), torch.ones(len(rows)))

    def to_image(self, logits, embeddings):
        return [torch.ones(e.image_size) for e in embeddings]

    def __deepcopy__(self, file_cache):
        return self


def test_tools_the_backbone_cannot_answer_are_refused_with_the_way_out():
    with pytest.raises(BackboneError, match="tools=\\['box', 'undo', 'clear', 'stop'\\]"):
        make(backbone=BoxesOnly(), cases=[disc_case()])
    env = make(backbone=BoxesOnly(), cases=[disc_case()], tools=["box", "undo", "clear", "stop"])
    env.reset(seed=0)
    assert act(env, AddBox(0, 0, 1, 1))[4]["valid"]


def test_tools_subset_keeps_the_order():
    env = make(cases=[disc_case()], tools=["stop", "box"])
    assert env.unwrapped.codec.tools == ("box", "stop")
    env.reset(seed=0)
    assert env.step(np.array([1, 0, 0, 0, 0]))[4]["stopped"]
    assert env.action_space.nvec[0] == 2 and len(TOOLS) == 6


def test_each_distinct_image_is_encoded_once():
    source = load_cases("samples", "test")
    backbone = CountingBackbone()
    env = make(backbone=backbone, cases=source, tools=["box", "stop"])
    for _ in range(3):
        for key in source.keys[:4]:
            env.reset(options={"case": key})
    assert backbone.encoded == 4


class CountingBackbone(BoxesOnly):
    def __init__(self):
        self.encoded = 0

    def encode(self, images):
        self.encoded += len(images)
        return super().encode(images)
