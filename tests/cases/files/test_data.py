"""Tests of all file-backed sources: refusing, skipping, grouping, caching."""

from __future__ import annotations

import logging
import os
import pickle
import threading

import numpy as np
import pytest
from defect_corpus.biomedparse_defects import FIRST

from medseg_gym.cases import CaseError, load_cases
from medseg_gym.cases.biomedparse import BiomedParseFormat
from medseg_gym.cases.case_source import load_splits
from medseg_gym.cases.files import ByteCache, Damaged, Defect, decoding, error_text, index_dataset
from medseg_gym.cases.files.access.walk import walk
from medseg_gym.cases.source import EmptySplit


def test_a_defect_that_only_pixels_show_is_an_error_when_they_are_read(data):
    (data / FIRST).write_bytes(b"")
    source = load_cases(f"biomedparse:{data}", "train")
    assert source[1].mask.any()
    with pytest.raises(CaseError) as caught:
        source[0]
    for words in (FIRST, "empty (0 bytes)", "skip_bad=1", f"cases check 'biomedparse:{data}'"):
        assert words in str(caught.value)


def test_skipping_says_once_how_much_was_left_out(data, caplog):
    (data / FIRST).write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        sources = load_splits(f"biomedparse:{data}?skip_bad=1")
    assert [len(source) for source in sources.values()] == [2, 1]
    (message,) = caplog.messages
    assert "cases left out that have a name: 1; defects: 1" in message and FIRST in message
    assert sources["train"].defects == sources["test"].defects


def test_nothing_usable_is_an_error_even_when_skipping(data):
    for file in data.rglob("*.json"):
        file.write_text("{")
    with pytest.raises(CaseError, match=r"there is no case under .*the first of 2 defects"):
        load_cases(f"biomedparse:{data}?skip_bad=1")


def test_a_repaired_file_is_believed_at_the_next_opening(data):
    sound = (data / FIRST).read_bytes()
    for content, defects in ((b"", 1), (sound, 0), (sound[:99], 1), (sound, 0)):
        (data / FIRST).write_bytes(content)
        opened = index_dataset(BiomedParseFormat, str(data))
        opened.examine()
        assert len(opened.bad) == defects


def test_pixels_that_were_read_are_not_read_again(data, monkeypatch):
    for file in data.rglob("*.png"):
        os.utime(file, (1, 1))
    first = index_dataset(BiomedParseFormat, str(data))
    facts = first.examine()

    def fail(self, record):
        raise AssertionError("read again")

    monkeypatch.setattr(BiomedParseFormat, "read", fail)
    again = index_dataset(BiomedParseFormat, str(data))
    assert again.examine() == facts and not again.bad


def test_splits_of_one_spec_share_their_index(data):
    sources = load_splits(f"biomedparse:{data}")
    assert sources["train"].data is sources["test"].data
    assert sources["train"].targets == sources["test"].targets


def test_a_split_that_is_not_there_can_be_told_from_a_defect(data):
    with pytest.raises(EmptySplit, match="no case in split 'val'"):
        load_cases(f"biomedparse:{data}", "val")
    assert list(load_splits("samples:multi-part")) == ["train"]


def test_the_index_follows_the_data_and_its_options_not_the_way_to_it(data, tmp_path, own_index):
    link = tmp_path / "link"
    link.symlink_to(data)
    index_dataset(BiomedParseFormat, str(data)).examine()
    before = set(own_index.iterdir())
    index_dataset(BiomedParseFormat, f"{link}?modality=MRI&group=a_.").examine()
    assert set(own_index.iterdir()) == before
    index_dataset(BiomedParseFormat, f"{data}?sentences=first").examine()
    assert set(own_index.iterdir()) > before


def test_cases_of_many_threads_are_whole(data):
    source = load_cases(f"biomedparse:{data}", "train")
    wanted = [(case.image.copy(), case.mask.copy()) for case in source]
    fresh = index_dataset(BiomedParseFormat, str(data))
    wrong: list[int] = []

    def read() -> None:
        for _ in range(20):
            for index, record in enumerate(fresh.split("train")):
                case = fresh.case(record)
                same = np.array_equal(case.image, wanted[index][0])
                if not (same and np.array_equal(case.mask, wanted[index][1])):
                    wrong.append(index)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_cache_keeps_to_its_bytes_and_forgets_the_oldest():
    cache, made = ByteCache(limit=10), []

    def make(key: str, size: int) -> int:
        return cache.get(key, lambda: made.append(key) or size, lambda value: value)

    for key, size in (("a", 4), ("b", 4), ("a", 4), ("c", 4), ("a", 4), ("b", 4), ("big", 11)):
        assert make(key, size) == size
    assert made == ["a", "b", "c", "b", "big"]
    make("big", 11)
    assert made[-2:] == ["big", "big"], "what is larger than the cache is not kept"


def test_foreign_errors_name_the_file_and_own_ones_pass():
    with pytest.raises(Damaged) as caught, decoding("a.png", "row 1"):
        raise KeyError("x")
    assert caught.value.defect == Defect("a.png", "'x' (KeyError)", "row 1")
    assert pickle.loads(pickle.dumps(caught.value)).defect == caught.value.defect
    with pytest.raises(Damaged, match=r"b\.png: inner"), decoding("a.png"):
        raise Damaged("b.png", "inner")
    with pytest.raises(KeyboardInterrupt), decoding("a.png"):
        raise KeyboardInterrupt
    assert error_text(PermissionError(13, "Permission denied")) == "permission denied"
    assert "0x" not in error_text(ValueError(f"bad {object()!r}"))


def test_walking_lists_files_in_order_and_leaves_hidden_ones_out(tmp_path):
    for name in ("b/2.png", "a.png", "b/1.png", ".hidden", ".git/x", "c d/é.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(walk(tmp_path)) == ["a.png", "b/1.png", "b/2.png", "c d/é.png"]
    assert list(walk(tmp_path / "a.png")) == [""]
    (gone,) = walk(tmp_path / "gone")
    assert isinstance(gone, Defect) and "no such file" in gone.cause
