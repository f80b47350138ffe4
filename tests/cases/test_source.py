"""Case sources: one contract, one object per spec, and errors that say what to do."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

from medseg_gym.cases import SPLITS, Case, CaseError, CaseSource, case_source, load_cases, register
from medseg_gym.cases.case_source import CaseList


def blank(key: str, target: str = "blob") -> Case:
    return Case(key, np.zeros((3, 3, 3), np.uint8), np.zeros((3, 3), bool), target)


class Numbers(CaseSource):
    """The least that a source of one's own must give."""

    name, split = "numbers", "val"

    def __init__(self, count: int) -> None:
        self._keys = [str(number) for number in range(count)]

    @property
    def keys(self):
        return self._keys

    @property
    def targets(self):
        return ("blob",)

    def __getitem__(self, index: int) -> Case:
        return blank(self.keys[index])


@pytest.fixture
def own_loaders():
    """Registrations of a test go away with it."""
    with case_source.CASES.temporarily():
        yield
    case_source._open.cache_clear()


@pytest.mark.parametrize(
    "made", [Numbers(3), CaseList([blank(k) for k in "012"])], ids=lambda made: type(made).__name__
)
def test_a_source_is_a_sequence_of_cases_with_keys(made):
    assert len(made) == 3 and list(made.keys) == ["0", "1", "2"]
    assert [case.key for case in made] == ["0", "1", "2"]
    assert [made.index_of(key) for key in made.keys] == [0, 1, 2]
    with pytest.raises(CaseError, match="has no case '7'; it has 3 keys, the first is '0'"):
        made.index_of("7")


def test_an_empty_source_of_ones_own_has_no_first_key_to_name():
    with pytest.raises(CaseError, match=r"'numbers' \(split 'val'\) has no case '0'; it has 0"):
        Numbers(0).index_of("0")


def test_targets_are_the_distinct_ones_in_order_unless_given():
    cases = [blank("a", "liver"), blank("b", "kidney"), blank("c", "liver")]
    assert CaseList(cases).targets == ("liver", "kidney")
    assert CaseList(cases, targets=["kidney", "spleen"]).targets == ("kidney", "spleen")


@pytest.mark.parametrize(
    ("cases", "words"),
    [
        ([], "'mine' is empty; give at least one Case"),
        ([blank("a"), blank("b"), blank("a")], "'mine' has repeated keys"),
        ([blank("a"), "b"], "'mine' holds a str, expected"),
    ],
)
def test_a_list_that_cannot_serve_is_refused(cases, words):
    with pytest.raises(CaseError, match=words):
        CaseList(cases, name="mine")


@pytest.mark.parametrize(
    "made", [Numbers(2), CaseList([blank("a")]), load_cases()], ids=lambda made: type(made).__name__
)
def test_deep_copies_of_kwargs_share_the_source(made):
    assert copy.deepcopy({"kwargs": [made]})["kwargs"][0] is made


@pytest.mark.parametrize("spec", ["samples", "phantoms"])
@pytest.mark.parametrize("split", SPLITS)
def test_the_same_spec_gives_the_same_object_with_one_vocabulary(spec, split):
    opened = load_cases(spec, split)
    assert opened is load_cases(spec, split)
    assert opened.targets == load_cases(spec, "train").targets
    assert (opened is load_cases(spec, "train")) == (split == "train")
    assert isinstance(opened[0], Case) and opened.index_of(opened[0].key) == 0


def test_samples_are_the_default():
    assert load_cases() is load_cases("samples", "train")


def test_sources_and_sequences_are_taken_as_they_are():
    made, cases = Numbers(2), (blank("a"), blank("b"))
    assert load_cases(made, "no split of mine") is made
    assert list(load_cases(cases)) == list(cases)
    assert [case.key for case in load_cases(blank(k) for k in "xy")] == ["x", "y"]


@pytest.mark.parametrize("spec", ["", "sample", "niftyy:/data", ":samples"])
def test_an_unknown_spec_lists_the_known_ones(spec):
    with pytest.raises(
        CaseError,
        match=r"unknown case spec .*phantoms, phantoms-volume, pool, samples.*module:Name",
    ):
        load_cases(spec)


@pytest.mark.parametrize("spec", [None, 7, Path("samples")], ids=repr)
def test_what_is_no_spec_at_all_is_refused(spec):
    with pytest.raises(CaseError, match="must be a text spec, a CaseSource or Cases"):
        load_cases(spec)


@pytest.mark.parametrize("split", ["dev", "", None, "Train"])
def test_an_unknown_split_lists_the_known_ones(split):
    with pytest.raises(CaseError, match=r"unknown split .*train, val, test"):
        load_cases("samples", split)


def test_a_registered_loader_gets_its_argument_and_split(own_loaders):
    asked = []

    def loader(argument, split):
        asked.append((argument, split))
        return Numbers(2)

    register("numbers", loader)
    assert load_cases("numbers:/a:b", "val") is load_cases("numbers:/a:b", "val")
    load_cases("numbers", "test")
    assert asked == [("/a:b", "val"), ("", "test")]


def test_a_loader_that_failed_is_asked_again(own_loaders):
    sources = []

    def loader(argument, split):
        if not sources:
            raise CaseError("the folder is not there yet")
        return sources[0]

    register("late", loader)
    with pytest.raises(CaseError, match="not there yet"):
        load_cases("late")
    sources.append(Numbers(1))
    assert load_cases("late") is sources[0]


@pytest.mark.parametrize(
    ("name", "words"),
    [("samples", "is registered already"), ("with:colon", "must be a name without :")],
)
def test_a_taken_or_unusable_loader_name_is_refused(own_loaders, name, words):
    with pytest.raises(CaseError, match=words):
        register(name, lambda argument, split: Numbers(1))


def test_a_registered_loader_gets_options_of_its_own_types(own_loaders):
    def loader(argument, split, *, count: int = 1):
        return Numbers(count)

    register("numbers", loader)
    assert len(load_cases("numbers:/a?count=3")) == 3
    with pytest.raises(CaseError, match=r"no option 'cuont' \(did you mean 'count'\?\)"):
        load_cases("numbers:/a?cuont=3")
    register("wrong", lambda split: Numbers(1))
    with pytest.raises(CaseError, match=r"cannot be called as factory\(argument, split, \*\*opt"):
        load_cases("wrong")


OWN = """
import numpy as np
from medseg_gym.cases import Case, CaseList
def case(key):
    return Case(key, np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), bool), "blob")
CASES = [case("a"), case("b")]
SOURCE = CaseList(CASES, name="mine")
def of_split(split, count: int = 1):
    return [case(f"{split} {number}") for number in range(count)]
def without_split():
    return CASES
def strange(split, size):
    return CASES
limit = 3
"""


def test_cases_of_a_file_by_their_path(tmp_path, monkeypatch):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    assert list(load_cases(f"{file}:CASES").keys) == ["a", "b"]
    assert load_cases(f"{file}:SOURCE").name == "mine"
    assert list(load_cases(f"{file}:of_split?count=2", "val").keys) == ["val 0", "val 1"]
    assert list(load_cases(f"{file}:without_split", "val").keys) == ["a", "b"]
    assert len(load_cases(f"pool:1:{file}:CASES")) == 1
    for name, words in (
        ("strange", r"strange\(split, size\) cannot be called as function\(split, \*\*options\)"),
        ("limit", "a CaseSource or Cases are wanted.*got a int"),
        ("CASES?count=1", "options go with a function"),
        ("CASE", "did you mean 'CASES'"),
    ):
        with pytest.raises(CaseError, match=words):
            load_cases(f"{file}:{name}")
