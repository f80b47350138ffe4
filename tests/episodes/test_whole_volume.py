"""Backbones that segment whole volumes: prompts in force, masks of all slices, the 3D protocol."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from medseg_agents.evaluation.protocols.interactive_3d import ClassClicks, WholeVolume

from medseg_gym.backbones import EllipseBackbone
from medseg_gym.backbones.volumes import VolumeBackbone
from medseg_gym.cases.npz import VolumeBox
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.episodes.volumes import VolumeEngine
from medseg_gym.episodes.volumes.whole import prompts_in_force
from medseg_gym.errors import BackboneError
from medseg_gym.prompts import AddBox, AddPoint, Clear, Undo
from medseg_gym.prompts.volumes import Look, Propagate, SlicePrompt

SHAPE = (5, 6, 8)


class Columns:
    """Sets, or with a negative click clears, the whole column of voxels through each click."""

    name, device = "columns", torch.device("cpu")
    prompt_kinds = trained_kinds = frozenset({"box", "point"})
    takes_mask_input = False

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.asked: list[tuple[SlicePrompt, ...]] = []

    def segment_volume(self, image, key, prompts) -> Any:
        self.asked.append(tuple(prompts))
        if self.answer is not None:
            return self.answer
        mask = np.zeros(image.shape[:3], bool)
        _, height, width = mask.shape
        for one in (p.prompt for p in prompts):
            if isinstance(one, AddBox):
                rows = slice(int(one.y1 * height), int(one.y2 * height))
                mask[:, rows, int(one.x1 * width) : int(one.x2 * width)] = True
            else:
                mask[:, int(one.y * height), int(one.x * width)] = one.positive
        return mask

    def encode(self, images):
        raise NotImplementedError

    def decode(self, rows):
        raise NotImplementedError

    def to_image(self, logits, embeddings):
        raise NotImplementedError


def case() -> VolumeCase:
    mask = np.zeros(SHAPE, bool)
    mask[:, 2, 3] = True
    return VolumeCase("column", np.full(SHAPE, 7, np.uint8), mask, "column")


def click(index: int, row: int, column: int, positive: bool = True) -> SlicePrompt:
    return SlicePrompt(index, AddPoint((column + 0.5) / 8, (row + 0.5) / 6, positive))


BOX = SlicePrompt(2, AddBox(0.25, 0.5, 0.5, 1.0))
PROMPTS = [
    *(click(0, 2, 3), click(4, 2, 3, False), click(1, 5, 7)),
    *(BOX, SlicePrompt(2, AddBox(0.5, 0.0, 0.75, 0.5)), SlicePrompt(3, BOX.prompt)),
    *(Undo(), Undo(), Clear(), Propagate(), Look(3)),
]


def test_the_contract_is_told_by_the_method() -> None:
    assert isinstance(Columns(), VolumeBackbone)
    assert not isinstance(EllipseBackbone("cpu"), VolumeBackbone)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PROMPTS), max_size=14))
def test_the_mask_is_that_of_the_prompts_in_force(actions) -> None:
    backbone = Columns()
    engine = VolumeEngine(backbone, max_steps=20)
    (episode,) = engine.reset([0], [case()])
    for prompt in actions:
        engine.step([0], [prompt])
        force = prompts_in_force(episode)
        expected = Columns().segment_volume(episode.case.image, "", force)
        np.testing.assert_array_equal(episode.mask(), expected)
        state = episode.state
        assert state.pixels == expected.sum()
        assert state.intersection == (expected & episode.case.mask).sum()
        assert state.prompted == sorted({one.slice for one in force})
        for index in state.prompted:
            boxes = [p.prompt for p in force if p.slice == index and isinstance(p.prompt, AddBox)]
            assert len(boxes) <= 1 and state.slices[index].box == (boxes[0] if boxes else None)
            points = [p.prompt for p in force if p.slice == index and p.prompt not in boxes]
            assert state.slices[index].points == tuple(points)


def test_a_fork_goes_on_by_itself() -> None:
    engine = VolumeEngine(Columns(), num_slots=2, max_steps=9)
    engine.reset([0], [case()])
    engine.step([0], [click(0, 2, 3)])
    engine.episodes[1] = engine.episode(0).fork()
    engine.step([0, 1], [click(1, 5, 7), Undo()])
    assert engine.episode(0).state.pixels == 10 and engine.episode(1).state.pixels == 0


@pytest.mark.parametrize(
    "answer",
    [
        np.zeros(SHAPE, np.uint8),
        np.zeros(SHAPE, np.float32),
        np.zeros((5, 6, 9), bool),
        np.zeros((1, 1, 1), bool),
        torch.zeros(SHAPE, dtype=torch.bool),
        "mask",
    ],
)
def test_what_is_no_mask_raises_and_is_no_step(answer) -> None:
    engine = VolumeEngine(Columns(answer), max_steps=9)
    (episode,) = engine.reset([0], [case()])
    with pytest.raises(BackboneError, match=r"columns: a bool mask of \(5, 6, 8\) voxels"):
        engine.step([0], [click(0, 2, 3)])
    assert not episode.steps and not episode.state.slices


def test_the_protocol_gives_box_and_clicks_in_order_class_by_class() -> None:
    backbone = Columns()
    clicks = [ClassClicks(), ClassClicks()]
    for one in (("fg", (0, 1, 1)), ("bg", (3, 4, 5)), None, ("fg", (1, 0, 0))):
        clicks[0].add(one)
    box = VolumeBox(0, 4, 2, 2, 1, 4, 3)
    image = np.zeros(SHAPE, np.uint8)
    labels = WholeVolume(backbone).segment(image, (1.0, 1.0, 1.0), [box, box], clicks, None)
    rectangle = SlicePrompt(2, AddBox(2 / 8, 1 / 6, 5 / 8, 4 / 6))
    points = (click(0, 1, 1), click(3, 4, 5, False), click(1, 0, 0))
    assert backbone.asked == [(rectangle, *points), (rectangle,)]
    assert set(np.unique(labels)) == {0, 1}  # on a voxel of two classes the first stays
    backbone.asked.clear()
    labels = WholeVolume(backbone).segment(image, (1.0, 1.0, 1.0), None, clicks, None)
    assert backbone.asked == [points] and labels.any()
    blind = Columns()
    blind.prompt_kinds = frozenset({"box"})
    with pytest.raises(BackboneError, match="takes no point"):
        WholeVolume(blind)
