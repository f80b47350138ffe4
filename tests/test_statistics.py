import numpy as np
import pytest

from medseg_gym.errors import MedSegError
from medseg_gym.statistics import bootstrap_interval, hierarchical_interval


def test_too_few_groups_give_no_interval():
    assert bootstrap_interval([0.1] * 40, ["a", "b", "c", "d"] * 10) is None
    assert bootstrap_interval([0.1] * 5, list("abcde")) is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_gives_no_interval_but_an_error(value):
    for groups in (list("abcdef"), list("aabbcc")):
        with pytest.raises(MedSegError, match=r"value 2 \(group '[bc]'\)"):
            bootstrap_interval([0.1, 0.2, value, 0.4, 0.5, 0.6], groups)
    with pytest.raises(MedSegError, match="level"):
        bootstrap_interval([0.1] * 6, list("abcdef"), level=value)


def test_groups_are_resampled_whole():
    # Ten cases a group, all alike: as many values, but only five that are independent.
    generator = np.random.default_rng(0)
    means = generator.normal(0.5, 0.1, 12)
    values, groups = np.repeat(means, 10), np.repeat(np.arange(12).astype(str), 10)
    low, high = bootstrap_interval(values, groups)
    alone = bootstrap_interval(values, np.arange(120).astype(str))
    assert high - low > 2.5 * (alone[1] - alone[0])
    assert low < values.mean() < high


def test_the_interval_covers_as_often_as_it_says():
    generator = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        values = generator.normal(0.7, 0.1, 40)
        low, high = bootstrap_interval(values, list(range(40)), resamples=500, seed=trial)
        hits += low <= 0.7 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_unequal_groups_weigh_by_their_cases():
    values, groups = [1.0] * 8 + [0.0] * 4, ["a"] * 8 + list("bcde")
    low, high = bootstrap_interval(values, groups)
    assert low == 0 and high == pytest.approx(1, abs=0.1)


def test_an_interval_covers_noise_of_seeds_and_of_cases():
    rng, groups = np.random.default_rng(0), [str(i // 4) for i in range(80)]
    held = []
    for _ in range(400):
        seeds, images = rng.normal(0, 1, (3, 1)), rng.normal(0, 2, 20).repeat(4)
        low, high = hierarchical_interval(seeds + images, groups)
        held.append(low <= 0 <= high)
    assert 0.93 <= np.mean(held) <= 1


def test_an_interval_says_nothing_where_nothing_is_known():
    groups = [str(i) for i in range(8)]
    assert hierarchical_interval(np.ones((3, 8)), groups) == (1, 1)
    assert hierarchical_interval(np.ones((1, 8)), groups) is None
    assert hierarchical_interval(np.ones((3, 8)), ["a", "b"] * 4) is None
    with pytest.raises(MedSegError, match="seed 1 has nan for case 2"):
        hierarchical_interval(np.where(np.arange(16).reshape(2, 8) == 10, np.nan, 1.0), groups)
