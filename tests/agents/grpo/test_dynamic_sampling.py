"""Groups without spread are drawn again, bounded and counted; a curriculum is resumed."""

import numpy as np
import pytest

from .conftest import learned

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


def flatten(algo, numbers):
    """Let groups of these numbers earn the same in all episodes."""
    sample, seen = algo.env_runner.sample, []

    def flat(*, groups, **kwargs):
        seen.append([group.number for group in groups])
        episodes = sample(groups=groups, **kwargs)
        for episode in episodes:
            if episode.custom_data["group"] in numbers:
                rewards = episode.rewards
                rewards.data[:] = [0.0] * len(rewards.data)
        return episodes

    algo.env_runner.sample = flat
    return seen


def test_groups_without_spread_are_played_again(make):
    algo = make(dynamic_sampling=True, temperature=1.3)
    seen = flatten(algo, {1, 3, 4})
    result = algo.train()["env_runners"]
    assert seen[:2] == [[0, 1, 2, 3], [4, 5]] and len(seen) <= 3
    assert result["groups/resampled"] == sum(map(len, seen)) - 4
    assert result["groups/without_spread"] == 0 or len(seen) == 3
    again = make(dynamic_sampling=True, temperature=1.3)
    assert flatten(again, {1, 3, 4}) is not None and again.train()["env_runners"] is not None
    assert again._choice.dealt == algo._choice.dealt


def test_an_iteration_of_nothing_but_flat_groups_ends(make):
    algo = make(dynamic_sampling=True, max_num_gen_batches=2)
    seen = flatten(algo, set(range(99)))
    result = algo.train()
    assert [len(one) for one in seen] == [4, 4]
    assert result["env_runners"]["groups/without_spread"] == 4
    assert learned(result)["frac_reward_zero_std"] == 1 and result["groups_lost"] == 0


def test_a_curriculum_goes_on_where_it_was(make, tmp_path):
    options = {"curriculum": "success", "success_dice": 0.3}
    algo = make(**options)
    algo.train()
    algo.save_to_path(str(tmp_path / "state"))
    other = make(**options)
    other.restore_from_path(str(tmp_path / "state"))
    assert other._choice.state() == algo._choice.state() and algo._choice.rates
    assert algo._choice.dealt == 4
    first, second = algo.train(), other.train()
    for name in ("curriculum/success_rate", "episode_return_mean"):
        assert np.isclose(first["env_runners"][name], second["env_runners"][name])
