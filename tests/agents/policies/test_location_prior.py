"""The baseline that has learned where things are, and does not look."""

import numpy as np
from medseg_agents import policies
from medseg_agents.policies.location_prior import location_prior

from medseg_gym.annotators.box import tight_box
from medseg_gym.cases import load_cases
from medseg_gym.policy import make_envs, play_cases
from medseg_gym.prompts import AddBox, Stop


def test_every_case_of_a_target_gets_the_median_box_of_the_training_cases():
    envs = make_envs(4, cases="phantoms:fundus", split="test", backbone="ellipse")
    policy = location_prior("phantoms:fundus", 40).build(envs)
    source = load_cases("phantoms:fundus", "train")
    boxes: dict[str, list] = {}
    for index in range(40):
        box = tight_box(source[index].mask)
        boxes.setdefault(source[index].target, []).append((box.x1, box.y1, box.x2, box.y2))
    for batch in play_cases(envs, policy, list(envs.source.keys[:8])):
        for played in batch:
            first, last = (step.prompt for step in played.episode.steps)
            expected = np.median(boxes[played.episode.case.target], axis=0)
            assert isinstance(first, AddBox) and isinstance(last, Stop)
            np.testing.assert_allclose(
                (first.x1, first.y1, first.x2, first.y2), expected, atol=1 / 1000
            )


def test_it_is_named_with_its_cases_and_small_sources_are_taken_whole():
    policy_spec = policies.make("location-prior:samples")
    assert policy_spec.name == "location-prior:samples"
    envs = make_envs(1, cases="samples", split="test", backbone="ellipse")
    assert any(box is not None for box in policy_spec.build(envs).boxes)
