import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medseg_gym.annotators import deepest_pixel, next_click
from medseg_gym.annotators.click import OracleClick
from medseg_gym.policy import make_envs, play_cases
from medseg_gym.prompts import AddPoint

masks = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def brute_force_depth(error: np.ndarray) -> np.ndarray:
    """Distance of every pixel to the nearest one outside the region, the border padded by one."""
    padded = np.pad(error, 1)
    outside = np.argwhere(~padded)
    depth = np.zeros(padded.shape)
    for pixel in np.argwhere(padded):
        depth[tuple(pixel)] = np.sqrt(((outside - pixel) ** 2).sum(axis=1)).min()
    return depth[1:-1, 1:-1]


@given(error=masks, data=st.data())
def test_the_deepest_pixel_is_the_deepest(error, data):
    pixels = [tuple(p) for p in np.argwhere(np.ones_like(error)).tolist()]
    avoid = data.draw(st.lists(st.sampled_from(pixels), max_size=4))
    expected = brute_force_depth(error)
    for pixel in avoid:
        expected[pixel] = 0
    depth, (row, column) = deepest_pixel(error, avoid)
    assert depth == pytest.approx(expected.max())
    if depth:
        assert expected[row, column] == pytest.approx(depth) and error[row, column]


@given(data=st.data())
def test_a_click_lands_on_an_error_of_its_kind(data):
    truth = data.draw(masks)
    mask = data.draw(arrays(bool, truth.shape))
    click = next_click(mask, truth)
    if click is None:
        assert (mask == truth).all()
        return
    row, column = int(click.y * truth.shape[0]), int(click.x * truth.shape[1])
    assert truth[row, column] == click.positive and mask[row, column] != click.positive
    missing, surplus = brute_force_depth(truth & ~mask), brute_force_depth(mask & ~truth)
    assert click.positive == (missing.max() > surplus.max())


def test_equal_depths_click_negative():
    truth, mask = np.zeros((9, 9), bool), np.zeros((9, 9), bool)
    truth[1:4, 1:4] = True
    mask[5:8, 5:8] = True
    assert next_click(mask, truth) == AddPoint((6 + 0.5) / 9, (6 + 0.5) / 9, positive=False)


def test_no_pixel_is_clicked_twice(small_cases):
    envs = make_envs(2, cases=small_cases[:2], backbone="ellipse", max_steps=12)
    for played in next(play_cases(envs, OracleClick(envs.codec), ["wide", "tall"])):
        height, width = played.episode.case.mask.shape
        clicks = [
            (int(step.prompt.y * height), int(step.prompt.x * width))
            for step in played.episode.steps
            if isinstance(step.prompt, AddPoint)
        ]
        assert len(clicks) == len(set(clicks)) > 5


def test_clicks_raise_dice_where_the_backbone_answers_them(small_cases):
    envs = make_envs(1, cases=small_cases[:1], backbone="ellipse", max_steps=5)
    ((played,),) = play_cases(envs, OracleClick(envs.codec), ["wide"])
    scores = [step.dice for step in played.episode.steps]
    assert len(scores) == 5 and scores == sorted(scores) and scores[-1] > 3 * scores[0] > 0
