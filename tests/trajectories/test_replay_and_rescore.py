import json
from dataclasses import replace

import numpy as np
import pytest

from medseg_gym.backbones.families.ellipse import EllipseBackbone
from medseg_gym.episodes import rewards
from medseg_gym.trajectories import (
    StoredCases,
    TrajectoryError,
    TrajectoryStore,
    TrajectoryWriter,
    rebuild_episode,
    replay_store,
    rescore_store,
)
from medseg_gym.trajectories.store.mask_codec import pack_mask


@pytest.mark.parametrize("num_envs", [1, 4])
@pytest.mark.parametrize("options", [{}, {"prompt_memory": "newest", "max_episode_steps": 2}])
def test_replay_of_the_control_is_exact(num_envs, options, make_store, small_cases):
    store = TrajectoryStore(make_store(autoreset_mode="same_step", **options))
    result = replay_store(store, cases=list(small_cases), num_envs=num_envs)
    assert result.episodes == len(store) > 10
    assert result.exact == result.steps and not result.mismatches


def test_replay_of_a_learned_backbone_is_within_tolerance(make_store, small_cases, tiny_backbone):
    store = TrajectoryStore(make_store(backbone=tiny_backbone))
    result = replay_store(store, tiny_backbone, cases=list(small_cases), num_envs=5)
    assert result.episodes == len(store) and not result.mismatches
    with pytest.raises(TrajectoryError, match="recorded backbone 'tiny' is not at hand"):
        replay_store(store, cases=list(small_cases))


def change(path, out, change_step):
    with TrajectoryWriter(out) as writer:
        for one in TrajectoryStore(path):
            id = writer.begin(one.facts)
            writer.add([(id, change_step(step, one.facts)) for step in one.steps])
    return TrajectoryStore(out)


def test_replay_notices_changes(make_store, small_cases, tmp_path):
    path = make_store()

    def far(step, facts):
        mask = np.zeros((facts.height, facts.width), bool)
        return replace(step, mask=pack_mask(~mask), reward=step.reward + 0.01)

    result = replay_store(change(path, tmp_path / "far", far), cases=list(small_cases))
    assert len(result.mismatches) == result.steps and result.exact == 0
    assert "mask pixels" in result.mismatches[0][2] and "reward" in result.mismatches[0][2]
    close = change(path, tmp_path / "close", lambda s, f: replace(s, dice=s.dice + 5e-4))
    result = replay_store(close, cases=list(small_cases))
    assert not result.mismatches and result.exact == 0 and result.max_dice == pytest.approx(5e-4)
    with pytest.raises(TrajectoryError, match="not 'other'"):
        other = EllipseBackbone()
        other.name = "other"
        replay_store(TrajectoryStore(path), other, cases=list(small_cases))


def test_cases_that_changed_or_are_gone_are_named(make_store, small_cases):
    (store, *_) = [TrajectoryStore(make_store())]
    with pytest.raises(TrajectoryError, match="cases in memory"):
        replay_store(store)
    with pytest.raises(TrajectoryError, match="not there any more"):
        replay_store(store, cases=[replace(c, key=c.key + "x") for c in small_cases])
    with pytest.raises(TrajectoryError, match="another image"):
        replay_store(store, cases=[replace(c, image=255 - c.image) for c in small_cases])
    with pytest.raises(TrajectoryError, match="another truth"):
        replay_store(store, cases=[replace(c, mask=~c.mask) for c in small_cases])


@pytest.mark.parametrize("reward", ["dice_gain", "medsam_agent", "ibis_agent"])
def test_rescoring_gives_the_recorded_rewards(reward, make_store):
    store = TrajectoryStore(make_store(reward=reward, max_episode_steps=3))
    truncated = 0
    for result in rescore_store(store, reward):
        assert result.new.rewards == result.old.rewards  # every bit
        for new, old in zip(result.new.steps, result.old.steps, strict=True):
            assert {k: new.terms[k] for k in old.terms if k in new.terms} == {
                k: v for k, v in old.terms.items() if k in new.terms
            }
        truncated += result.old.steps[-1].truncated
    assert truncated


def test_rescoring_into_a_new_store(make_store, tmp_path, small_cases):
    store = TrajectoryStore(make_store())
    expected = {
        one.new.key: one.new for one in rescore_store(store, "medsam_agent", tmp_path / "r")
    }
    new = TrajectoryStore(tmp_path / "r")
    assert new.keys() == store.keys()
    for one in new:
        assert one.steps == expected[one.key].steps and one.accepted is None
        assert one.facts.options["reward"] == "medsam_agent"
        assert (
            rewards.score_episode(
                "medsam_agent",
                [m for m, s in zip(one.masks, one.steps, strict=True) if not s.stopped],
                one.truth,
                one.prompts,
                max_steps=5,
            )[-1].value
            == one.rewards[-1]
        )
    result = replay_store(new, cases=list(small_cases))  # with the new reward
    assert result.exact == result.steps


def test_rebuilt_episodes_are_what_was_played(make_store, small_cases):
    where = StoredCases(list(small_cases))
    for one in TrajectoryStore(make_store()):
        for case in (None, where.find(one)):
            episode = rebuild_episode(one, case)
            assert [s.dice for s in episode.steps] == [s.dice for s in one.steps]
            assert [s.error for s in episode.steps] == [s.error for s in one.steps]
            assert episode.done


def test_terms_are_plain_numbers(make_store):
    for one in TrajectoryStore(make_store(reward="medsam_agent")):
        json.dumps([dict(step.terms) for step in one.steps])
        assert all("format" in step.terms for step in one.steps)
