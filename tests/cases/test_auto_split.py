"""`--split auto`: test, or everything where the data name no splits and are few."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medseg_gym.cases import load_cases, split_note
from medseg_gym.cases.source import EmptySplit
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.options import GenerateOptions


def folder(path, count, inside=""):
    """A folder of images, of one split where it is named."""
    for kind in ("images", "masks"):
        (path / inside / kind).mkdir(parents=True)
        for number in range(count):
            pixels = np.zeros((32, 32), np.uint8)
            pixels[8:20, 8 + number % 8 : 20] = 255
            Image.fromarray(pixels).save(path / inside / kind / f"s{number}.png")
    return f"folder:{path}?target=square"


def test_few_images_without_splits_are_all_played(tmp_path):
    spec = folder(tmp_path, 3)
    source = load_cases(spec, "auto")
    assert source.split == "all" and len(source) == 3
    assert "all 3 cases were played" in split_note(source)
    parts = 0
    for split in ("train", "val", "test"):
        try:
            parts += len(load_cases(spec, split))
        except EmptySplit:
            continue
    assert parts == 3, "training takes its own split as ever"


def test_many_images_without_splits_keep_their_test_split(tmp_path):
    source = load_cases(folder(tmp_path, 60), "auto")
    assert source.split == "test" and 5 <= len(source) < 30 and not split_note(source)


def test_shares_that_were_given_hold(tmp_path):
    source = load_cases(folder(tmp_path, 3) + "&splits=0,0,100", "auto")
    assert source.split == "test" and len(source) == 3


def test_bundled_cases_keep_their_test_split():
    assert load_cases("samples", "auto").keys == load_cases("samples", "test").keys


def test_training_data_are_not_taken_from_whatever_there_is():
    with pytest.raises(TrajectoryError, match="it may be the test split"):
        GenerateOptions(split="auto")
