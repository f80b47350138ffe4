from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

import medseg_gym  # noqa: F401
from medseg_gym.backbones import Embedding, Prediction
from medseg_gym.errors import BackboneError, MedSegError, ToolError


class Reader:
    """Takes text; keeps what it was told."""

    name, device = "reader", torch.device("cpu")
    prompt_kinds = trained_kinds = frozenset({"box", "point", "text"})
    takes_mask_input = False

    def __init__(self):
        self.texts = []

    def __deepcopy__(self, file_cache):
        return self

    def encode(self, images):
        return [Embedding((), image.shape[:2], (8, 8)) for image in images]

    def decode(self, rows):
        self.texts += [row.text for row in rows]
        return Prediction(torch.ones(len(rows), 8, 8), torch.ones(len(rows)))

    def to_image(self, logits, embeddings):
        return [torch.ones(e.image_size) for e in embeddings]


@pytest.mark.parametrize("shown_text", [True, False])
def test_the_target_is_told_where_it_was_asked_for(shown_text, small_cases):
    reader = Reader()
    env = gym.make("MedSeg-v0", backbone=reader, cases=small_cases, text_prompt=shown_text)
    env.reset(options={"case": "wide"})
    env.step([0, 100, 100, 900, 900])
    assert reader.texts == ["blob" if shown_text else None]


def test_text_for_a_backbone_that_takes_none_is_refused_before_any_episode(small_cases):
    with pytest.raises(BackboneError, match="takes no text prompts"):
        gym.make("MedSeg-v0", backbone="ellipse", cases=small_cases, text_prompt=True)


class Writer(Reader):
    """Marks the left half for a text alone, the right half for anything else."""

    def decode(self, rows):
        self.texts += [row.text for row in rows]
        left = torch.tensor([row.box is None and not row.points for row in rows])
        half = torch.ones(len(rows), 8, 8)
        half[:, :, 4:] = -1
        return Prediction(torch.where(left[:, None, None], half, -half), torch.ones(len(rows)))

    def to_image(self, logits, embeddings):
        return [
            torch.nn.functional.interpolate(one[None, None], e.image_size)[0, 0]
            for one, e in zip(logits, embeddings, strict=True)
        ]


def test_an_episode_begins_with_the_mask_of_its_words(small_cases):
    writer = Writer()
    envs = gym.make_vec(
        "MedSeg-v0", num_envs=2, backbone=writer, cases=small_cases, text_start=True
    )
    _, info = envs.reset(options={"case": ["wide", "tall"]})
    assert writer.texts == ["blob", "blob"]
    for episode, dice in zip(envs.unwrapped.episodes, info["dice"], strict=True):
        start = episode.start.mask
        half = start.shape[1] // 2
        assert start[:, :half].all() and not start[:, half + 1 :].any()
        both = int((episode.truth & start).sum())
        assert dice == pytest.approx(2 * both / int(episode.truth.sum() + start.sum()))
    envs.step(np.array([[0, 100, 100, 900, 900], [5, 0, 0, 0, 0]]))
    assert writer.texts == ["blob", "blob", None]  # no words with prompts, unless asked for
    boxed, stopped = envs.unwrapped.episodes
    assert not (boxed.state.mask & boxed.start.mask).any()
    assert stopped.state is stopped.start


def test_a_case_keeps_the_mask_that_it_brings(small_cases):
    writer, case = Writer(), small_cases[0]
    begun = replace(case, initial_mask=np.ones(case.mask.shape, bool))
    env = gym.make("MedSeg-v0", backbone=writer, cases=[begun], text_start=True)
    env.reset(seed=0)
    assert env.unwrapped.episodes[0].start.mask.all() and not writer.texts


def test_masks_of_words_are_not_for_volumes_and_need_a_reader(small_cases):
    with pytest.raises(MedSegError, match=r"text_start.*volumes begin with no mask"):
        gym.make("MedSegVolume-v0", backbone=Writer(), text_start=True)
    with pytest.raises(BackboneError, match="leave text_start out"):
        gym.make("MedSeg-v0", backbone="ellipse", cases=small_cases, text_start=True)


class Clickless(Reader):
    prompt_kinds = trained_kinds = frozenset({"box"})


@pytest.mark.parametrize(
    "env_id, usable",
    [
        ("MedSeg-v0", ("box", "undo", "clear", "stop")),
        ("MedSegChat-v0", ("box", "undo", "clear", "stop")),
        ("MedSegVolume-v0", ("box", "propagate", "look", "undo", "clear", "stop")),
    ],
)
def test_auto_takes_the_tools_that_a_backbone_can_answer(env_id, usable):
    env = gym.make(env_id, backbone=Clickless(), tools="auto")
    assert env.unwrapped.view.tools == usable == tuple(env.unwrapped.options.tools)
    with pytest.raises(ToolError, match=r"cannot answer the tools \['negative_point'"):
        gym.make(env_id, backbone=Clickless())
