"""A box first, then the clicks that a careful user makes."""

from __future__ import annotations

from medseg_gym import annotators
from medseg_gym.annotators import next_click, tight_box
from medseg_gym.annotators.click import click_pixels
from medseg_gym.policy import make_envs, play_cases
from medseg_gym.prompts import AddBox, AddPoint, Stop


def play(small_cases, tiny_backbone, name):
    envs = make_envs(3, cases=small_cases, backbone=tiny_backbone, max_steps=4)
    policy = annotators.make(name, envs.codec)
    keys = envs.source.keys
    return [p.episode for batch in play_cases(envs, policy, keys) for p in batch], policy


def test_box_then_clicks_on_the_error(small_cases, tiny_backbone):
    episodes, policy = play(small_cases, tiny_backbone, "oracle-box-click")
    assert policy.name == "oracle-box-click" and policy.sees_truth
    for episode in episodes:
        prompts = [step.prompt for step in episode.steps]
        if not episode.case.mask.any():
            assert prompts == [Stop()]
            continue
        assert isinstance(prompts[0], AddBox) and len(prompts) == 4
        tight = tight_box(episode.case.mask)
        assert abs(prompts[0].x1 - tight.x1) < 0.002 and abs(prompts[0].y2 - tight.y2) < 0.002
        clicked: list = []
        for step, prompt in enumerate(prompts[1:]):
            before = episode.steps[step].state.mask.numpy()
            wanted = next_click(before, episode.case.mask, clicked)
            assert isinstance(prompt, AddPoint) and prompt.positive == wanted.positive
            assert abs(prompt.x - wanted.x) < 0.001 and abs(prompt.y - wanted.y) < 0.001
            clicked += click_pixels(prompt, before.shape, policy.codec.bins)


def test_loose_boxes_reach_further(small_cases, tiny_backbone):
    episodes, policy = play(small_cases, tiny_backbone, "oracle-box-click?loosen=0.5")
    assert policy.name == "oracle-box-click?loosen=0.5"
    boxes = [
        (episode.steps[0].prompt, tight_box(episode.case.mask))
        for episode in episodes
        if episode.case.mask.any()
    ]
    assert any(box.x1 < tight.x1 - 0.02 for box, tight in boxes)
