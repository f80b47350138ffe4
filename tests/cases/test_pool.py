"""Pools of cases."""

import pytest

from medseg_gym.cases import CaseList, load_cases
from medseg_gym.cases.derived.pool import case_pool
from medseg_gym.errors import CaseError


def test_a_pool_takes_whole_images_and_no_case_twice():
    pool = load_cases("pool:24:phantoms:abdomen", "train")
    assert len(pool) == 24 and len(set(pool.keys)) == 24
    assert len({case.content_hash for case in pool}) == 6  # four targets an image
    assert pool.targets == load_cases("phantoms:abdomen", "train").targets
    source = load_cases("phantoms:abdomen", "train")
    assert all(source.index_of(key) >= 0 for key in pool.keys)


def test_seed_and_split_decide_what_is_in_it():
    keys = [
        tuple(load_cases(f"pool:8{seed}:phantoms", split).keys)
        for seed, split in (("", "train"), ("@0", "train"), ("@1", "train"), ("", "val"))
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    assert load_cases("pool:8:phantoms", "train") is load_cases("pool:8:phantoms", "train")


def test_a_small_source_is_taken_whole():
    source = load_cases("samples", "test")
    assert set(case_pool(source, 10_000).keys) == set(source.keys)
    few = CaseList([source[0], source[1], source[2]])
    assert len(case_pool(few, 2)) == 2


@pytest.mark.parametrize("spec", ["pool:phantoms", "pool:", "pool:x:phantoms", "pool:3@y:phantoms"])
def test_unreadable_specs_say_how_they_are_written(spec):
    with pytest.raises(CaseError, match="pool:SIZE:SPEC"):
        load_cases(spec, "train")


def test_an_empty_pool_is_refused():
    with pytest.raises(CaseError, match="at least one"):
        load_cases("pool:0:phantoms", "train")
