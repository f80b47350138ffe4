"""Policies of volumes: what they prompt, and where they click."""

from __future__ import annotations

import numpy as np
import pytest

from medseg_gym import annotators, backbones
from medseg_gym.annotators.volumes import (
    EverySliceBox,
    KeySliceBox,
    KeySliceBoxes,
    KeySliceClicks,
)
from medseg_gym.cases import VolumeCase
from medseg_gym.episodes.volumes import PropagationOptions, VolumeEngine
from medseg_gym.errors import PolicyError
from medseg_gym.policy import make_envs, play_cases
from medseg_gym.prompts import AddBox, Stop
from medseg_gym.prompts.volumes import Propagate, SlicePrompt, VolumeCodec


def cone(depth: int = 9, side: int = 40) -> VolumeCase:
    """A disc that is largest in slice 4 and gone beyond 1..7."""
    y, x = np.mgrid[:side, :side]
    distance = np.hypot(x - side / 2 + 0.5, y - side / 2 + 0.5)
    mask = np.stack([distance < 13 - 3.5 * abs(index - 4) for index in range(depth)])
    key = "cone" if depth == 9 else f"cone-{depth}"
    return VolumeCase(key, (mask * 200 + 20).astype(np.uint8), mask, "cone")


def play(policy, case, max_steps=30, **options):
    engine = VolumeEngine(backbones.load("ellipse"), max_steps=max_steps, **options)
    (episode,) = engine.reset([0], [case])
    while not episode.done:
        row = policy.act({}, [episode])
        (prompt,) = policy.codec.decode(row, [case.depth])
        engine.step([0], [prompt])
    return episode


def test_the_key_slice_shows_most_of_the_target():
    episode = play(KeySliceBox(VolumeCodec(9)), cone())
    assert [type(step.prompt) for step in episode.steps] == [SlicePrompt, Propagate, Stop]
    assert episode.steps[0].prompt.slice == 4 and isinstance(episode.steps[0].prompt.prompt, AddBox)
    empty = VolumeCase("e", cone().image, cone().mask & False, "x")
    assert play(KeySliceBox(VolumeCodec(9)), empty).steps[0].tool == "stop"


def test_clicks_fall_on_the_largest_error_and_mend_it():
    engine = VolumeEngine(
        backbones.load("ellipse"),
        max_steps=30,
        propagation=PropagationOptions(loosen=0.0, max_shift=np.inf, max_drift=np.inf),
    )
    (episode,) = engine.reset([0], [cone()])
    policy = KeySliceClicks(VolumeCodec(9))
    for _ in range(2):
        engine.step([0], [policy.choose(episode)])
    click = policy.next_click(episode)
    error = episode.mask() ^ episode.case.mask  # a cylinder: too much at both ends
    assert click is not None and not click.prompt.positive
    assert error[click.slice].sum() == error.sum(axis=(1, 2)).max()
    assert error[click.slice][int(click.prompt.y * 40), int(click.prompt.x * 40)]
    before = episode.dice
    engine.step([0], [click])
    assert episode.dice > before
    again = policy.next_click(episode)
    assert again is not None and again != click


def test_a_box_on_every_slice_is_close_to_the_truth_and_costs_one_each():
    episode = play(EverySliceBox(VolumeCodec(9)), cone())
    assert episode.dice > 0.95 and episode.stopped
    assert episode.state.prompted == list(range(1, 8)) and len(episode.steps) == 8


def test_slices_without_a_cell_are_left_out():
    policy = EverySliceBox(VolumeCodec(slices=3))
    assert policy.reachable(9) == [1, 4, 7]
    assert play(policy, cone()).state.prompted == [1, 4, 7]


def test_oracles_stop_where_nothing_is_wrong():
    policy = KeySliceClicks(VolumeCodec(9))
    empty = VolumeCase("e", cone().image, cone().mask & False, "x")
    assert play(policy, empty).dice == 1


@pytest.mark.parametrize("name", annotators.volume_names())
def test_every_policy_of_volumes_plays_by_its_name(name):
    envs = make_envs(
        2, "MedSegVolume-v0", cases=[cone(), cone(7, 24)], backbone="ellipse", slices=9
    )
    policy = annotators.make(name, envs.codec)
    assert policy.name == name
    (played,) = play_cases(envs, policy, ["cone", "cone-7"])
    assert [one.key for one in played] == ["cone", "cone-7"]
    for one in played:
        gain = one.episode.dice - one.episode.start_dice
        paid = 0.01 * sum(not step.effect == "stop" for step in one.episode.steps)
        assert one.summary.episode_return == pytest.approx(gain - paid)
    assert policy.sees_truth == name.startswith("oracle")
    envs.close()


def test_the_middle_box_is_on_the_middle_slice_and_needs_no_truth():
    envs = make_envs(1, "MedSegVolume-v0", cases=[cone()], backbone="ellipse", slices=32)
    ((played,),) = play_cases(envs, annotators.make("middle-box", envs.codec), ["cone"])
    steps = played.episode.steps
    assert [step.tool for step in steps] == ["box", "propagate", "stop"]
    assert steps[0].prompt.slice == 4 and steps[0].prompt.prompt.x1 == pytest.approx(0.25, abs=1e-3)


def test_boxes_mend_the_slices_that_err_most():
    episode = play(KeySliceBoxes(VolumeCodec(9)), cone(), max_steps=8)
    tools = [step.tool for step in episode.steps]
    assert tools == ["box", "propagate"] * 4
    boxed = [step.prompt.slice for step in episode.steps[::2]]
    assert len(set(boxed)) == 4 and episode.dice > play(KeySliceBox(VolumeCodec(9)), cone()).dice


def test_a_name_for_images_is_refused_for_volumes():
    with pytest.raises(
        PolicyError, match=r"unknown policy of volumes 'oracle-box'.*oracle-key-slice"
    ):
        annotators.make("oracle-box", VolumeCodec(9))
