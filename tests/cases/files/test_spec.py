"""Paths and options in one text; splits and modalities from names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym.cases import SPLITS, CaseError
from medseg_gym.cases.files import FileOptions, FileSpec, WrongOption
from medseg_gym.cases.files.modality import modality_of
from medseg_gym.cases.files.splits import parse_shares, split_named, split_of_group


@dataclass(frozen=True, kw_only=True)
class PlaneOptions(FileOptions):
    axis: int = 0
    """Number of the axis."""

    window: str = ""
    """Shown intensities."""

    view: Literal["a", "b"] = "a"
    """Direction."""

    def __post_init__(self) -> None:
        if not 0 <= self.axis <= 2:
            raise WrongOption("axis", "give a number from 0 to 2")


def parse(argument: str) -> FileSpec:
    return FileSpec.parse("folder", argument, PlaneOptions)


def test_options_follow_a_question_mark(tmp_path):
    odd = tmp_path / "a?b"
    odd.mkdir()
    spec = parse(f"{odd}?axis=2&window=-160%2C240&group=^(p\\d+?)_")
    assert spec.path == odd
    assert spec.options == {"axis": "2", "window": "-160,240", "group": "^(p\\d+?)_"}
    assert spec.read(PlaneOptions) == PlaneOptions(axis=2, window="-160,240", group="^(p\\d+?)_")
    assert spec.read(FileOptions) == FileOptions(group="^(p\\d+?)_")
    assert parse("/nowhere?group=a?b").options == {"group": "a?b"}


def test_a_path_that_exists_has_no_options(tmp_path):
    odd = tmp_path / "what?axis=2"
    odd.mkdir()
    spec = parse(str(odd))
    assert spec.path == odd and not spec.options
    assert parse(spec.adding(skip_bad="1").partition(":")[2]).path == odd


def test_the_home_directory_is_known(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse("~/data").path == tmp_path / "data"


@given(st.dictionaries(st.sampled_from(["splits", "window", "group", "modality"]), st.text()))
def test_options_written_into_a_spec_are_read_back(options):
    name, _, argument = parse("/data/x").adding(**options, skip_bad="1").partition(":")
    assert (name, parse(argument).options) == ("folder", {**options, "skip_bad": "1"})
    assert parse(argument).path == Path("/data/x") and parse(argument).read(FileOptions).skip_bad


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("", "names no path"),
        ("?axis=1", "names no path"),
        ("/data\0/x", "not a path|names no path"),
        ("/data?axes=1", "unknown option 'axes'.*known: skip_bad, splits, group, modality, axis"),
        ("/data?axis=1&axis=2", "repeated option 'axis'"),
        ("/data?axis", "cannot read the options"),
    ],
)
def test_a_spec_that_cannot_be_read_says_why(argument, words):
    with pytest.raises(CaseError, match=words):
        parse(argument)


@pytest.mark.parametrize("value", ["x", "nan", "inf", "3", ""])
def test_numbers_are_checked(value):
    with pytest.raises(CaseError, match="option axis="):
        parse(f"/data?axis={value}")


def test_flags_and_choices_are_checked():
    assert parse("/d?skip_bad=yes").read(FileOptions).skip_bad
    assert not parse("/d?skip_bad=0").read(FileOptions).skip_bad
    with pytest.raises(CaseError, match="use 1 or 0"):
        parse("/d?skip_bad=maybe")
    with pytest.raises(CaseError, match="use one of a, b"):
        parse("/d?view=c")


@given(st.text())
def test_a_group_always_lands_in_the_same_split(group):
    assert split_of_group(group) == split_of_group(group) in SPLITS
    assert split_of_group(group, (0, 1, 0)) == "val"


def test_groups_are_shared_out_as_asked():
    shares = parse_shares("50,25,25")
    splits = [split_of_group(f"patient {number}", shares) for number in range(2000)]
    assert [abs(splits.count(s) / 2000 - p) < 0.04 for s, p in zip(SPLITS, shares, strict=True)]
    moved = [a != split_of_group(f"patient {n}", (0.5, 0.3, 0.2)) for n, a in enumerate(splits)]
    assert sum(moved) < 2000 * 0.08, "other shares move only the groups that they must"


@pytest.mark.parametrize("text", ["70,30", "a,b,c", "0,0,0", "-1,1,1", "inf,1,1", "nan,1,1", ""])
def test_shares_that_make_no_sense_are_refused(text):
    with pytest.raises(CaseError, match="give three parts"):
        parse_shares(text)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("imagesTr", "train"),
        ("valid.json", "val"),
        ("test-00000-of-00002.parquet", "test"),
        ("validation", "val"),
        ("testing_set", "test"),
        ("trainval", ""),
        ("train_test", ""),
        ("attest", ""),
        ("BTCV", ""),
    ],
)
def test_a_split_is_named_by_whole_words(name, split):
    assert split_named(name) == split


@pytest.mark.parametrize(
    ("texts", "modality"),
    [
        (["right kidney in abdomen CT"], "CT"),
        (["x", "enhancing tumour in brain MRI-T1-Gd"], "MRI"),
        (["covid_1585_X-Ray_chest"], "X-ray"),
        (["malignant85_ultrasound_breast"], "ultrasound"),
        (["optic disc in retinal fundus"], "fundus"),
        (["polyp in colon endoscope"], "endoscopy"),
        (["glandular structure in colon pathology"], "microscopy"),
        (["melanoma in skin dermoscopy"], "dermoscopy"),
        (["edema in retinal OCT"], "OCT"),
        (["a CT beside an MRI", "MRI"], "MRI"),
        (["rectum", "actor"], ""),
        (["us"], "ultrasound"),
    ],
)
def test_a_modality_is_named_by_whole_words(texts, modality):
    assert modality_of(*texts) == modality
