"""EpisodeSummary: one name and one definition for each number of an episode."""

from __future__ import annotations

import math
from dataclasses import fields
from itertools import accumulate

import numpy as np
import pytest
import torch

from medseg_gym.backbones import EllipseBackbone
from medseg_gym.cases import Case
from medseg_gym.envs.medseg_vector import MedSegVectorEnv
from medseg_gym.episodes import Episode, EpisodeEngine, EpisodeSummary, mean_summary
from medseg_gym.episodes.summary import LAST_INFO
from medseg_gym.errors import PromptError
from medseg_gym.prompts import AddBox, AddPoint, Stop

PLAY = [AddBox(0.3, 0.1, 0.9, 0.7), PromptError("unreadable"), AddPoint(0.02, 0.02), Stop()]


@pytest.fixture
def played(small_cases):
    engine = EpisodeEngine(EllipseBackbone(), max_steps=6)
    (episode,) = engine.reset([0], small_cases[:1])
    results = [engine.step([0], [prompt])[0] for prompt in PLAY]
    return episode, results


def test_every_number_follows_from_the_episode(played):
    episode, results = played
    summary = EpisodeSummary.of(episode)
    rewards = [result.reward for result in results]
    dice = [episode.start_dice, *(step.dice for step in episode.steps)]
    assert episode.rewards == rewards and summary.episode_return == sum(rewards)
    assert (summary.dice, summary.iou) == (episode.dice, episode.iou)
    assert (summary.start_dice, summary.first_dice) == (dice[0], dice[1])
    assert (summary.turns, summary.invalid, summary.valid, summary.cut_off) == (4, 1, 3, 0)
    assert summary.valid_rate == 0.75 and summary.stopped and summary.done
    assert summary.stop_regret == max(dice) - dice[-1] > 0
    assert summary.return_regret == max(accumulate([0.0, *rewards])) - sum(rewards)
    assert summary.case == episode.case.key


def test_what_was_cut_off_is_not_invalid_as_well(played):
    summary = EpisodeSummary.of(played[0], cut_off=1)
    assert (summary.invalid, summary.cut_off, summary.valid) == (0, 1, 3)


def test_the_last_step_tells_the_summary(played):
    episode, results = played
    for result in results[:-1]:
        assert not set(LAST_INFO) & set(result.info)
    summary = EpisodeSummary.of(episode)
    assert {name: results[-1].info[name] for name in LAST_INFO} == summary.last_info
    for name in ("dice", "iou", "case", "stopped"):
        assert results[-1].info[name] == getattr(summary, name)
    assert set(LAST_INFO) <= {field.name for field in fields(EpisodeSummary)}


@pytest.mark.parametrize("mode", ["next_step", "same_step", "disabled"])
def test_vector_environments_tell_it_of_the_slots_that_ended(small_cases, mode):
    options = {"cases": small_cases, "backbone": "ellipse", "image_size": 16}
    envs = MedSegVectorEnv(2, autoreset_mode=mode, **options)
    envs.reset(seed=0)
    _, _, ended, _, infos = envs.step(np.array([[5, 0, 0, 0, 0], [0, 1, 1, 500, 500]]))
    assert ended.tolist() == [True, False]
    shown_text = infos["final_info"] if mode == "same_step" else infos
    assert shown_text["turns"][0] == 1 and shown_text["episode_return"][0] == 0
    assert shown_text["_turns"].tolist() == [True, False]


def test_before_the_first_action(small_cases):
    engine = EpisodeEngine(EllipseBackbone())
    summary = EpisodeSummary.of(engine.reset([0], small_cases[:1])[0])
    assert summary.turns == summary.episode_return == summary.valid_rate == 0
    assert summary.first_dice == summary.start_dice == summary.dice and not summary.done


def test_unknown_truth_has_no_scores():
    image = np.zeros((8, 8, 3), np.uint8)
    case = Case("photo", image, np.zeros((8, 8), bool), target="x", truth_known=False)
    engine = EpisodeEngine(EllipseBackbone())
    engine.reset([0], [case])
    (result,) = engine.step([0], [Stop()])
    assert math.isnan(result.info["stop_regret"]) and result.info["turns"] == 1
    bare = Episode(case, torch.zeros(8, 8, dtype=torch.bool), 3)
    assert math.isnan(EpisodeSummary.of(bare).dice)


def test_means_count_actions_together(played):
    first = EpisodeSummary.of(played[0])
    second = EpisodeSummary.of(played[0], rewards=[1.0] * 4)
    means = mean_summary([first, second])
    assert means["episode_return"] == (first.episode_return + 4) / 2
    assert means["valid_rate"] == 0.75 and means["stopped"] == 1 and means["turns"] == 4
