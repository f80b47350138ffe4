"""The persistent index: what it remembers, what makes it forget, and what it survives."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg_gym.cases.files import FileCache, file_cache


@pytest.fixture
def data(tmp_path: Path) -> list[Path]:
    """Three files that have not changed for a while."""
    files = [tmp_path / f"{number}.txt" for number in range(3)]
    for number, file in enumerate(files):
        write(file, f"text {number}", age=100)
    return files


def write(file: Path, text: str, age: float) -> None:
    file.write_text(text)
    now = file.stat().st_mtime_ns
    os.utime(file, ns=(now, now - int(age * 1e9)))


def read_all(path: Path | None, files: list[Path]) -> tuple[list[str], int]:
    """Texts of the files through the index, and how many were not in it."""
    with FileCache(path) as index:
        return [index.remember(f.name, [f], f.read_text) for f in files], index.computed


def test_what_is_in_the_index_is_not_read_again(tmp_path, data):
    path = tmp_path / "index" / "i.json"
    texts = ["text 0", "text 1", "text 2"]
    assert read_all(path, data) == (texts, 3)
    assert read_all(path, data) == (texts, 0)
    assert read_all(None, data) == (texts, 3)


def test_changed_added_and_removed_files_are_noticed(tmp_path, data):
    path = tmp_path / "i.json"
    read_all(path, data)
    write(data[0], "longer text", age=100)  # another size
    write(data[1], "TEXT 1", age=50)  # another time
    added = tmp_path / "3.txt"
    write(added, "new", age=100)
    assert read_all(path, [*data, added]) == (["longer text", "TEXT 1", "text 2", "new"], 3)
    assert read_all(path, data[2:]) == (["text 2"], 0)
    assert read_all(path, [*data, added])[1] == 3, "what was not asked for was dropped"


def test_a_file_that_comes_back_with_its_old_time_is_noticed_by_size(tmp_path, data):
    path = tmp_path / "i.json"
    before = data[0].stat()
    read_all(path, data)
    data[0].write_text("changed")
    os.utime(data[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read_all(path, data) == (["changed", "text 1", "text 2"], 1)


def test_a_file_written_this_instant_is_not_trusted(tmp_path):
    """A clock may stand still for some milliseconds: a change could leave no trace."""
    file, path = tmp_path / "young", tmp_path / "i.json"
    write(file, "a", age=0)
    assert read_all(path, [file])[1] == 1
    assert read_all(path, [file])[1] == 1
    write(file, "a", age=1)
    assert [read_all(path, [file])[1] for _ in range(2)] == [1, 0]


def test_a_missing_file_is_a_state_like_any_other(tmp_path):
    path, gone = tmp_path / "i.json", tmp_path / "gone"
    for computed in (1, 0):
        with FileCache(path) as index:
            assert index.remember("gone", [gone], gone.exists) is False
            assert index.computed == computed
    write(gone, "here", age=100)
    with FileCache(path) as index:
        assert index.remember("gone", [gone], gone.exists) is True


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: b"",
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw.replace(b"text 1", b"text 9"),
        lambda raw: b"{}\n{}",
        lambda raw: b"\xff\xfe" + raw,
        lambda raw: raw.replace(b'index": 1', b'index": 2'),
    ],
    ids=["empty", "cut", "altered", "foreign", "no-text", "other-version"],
)
def test_a_damaged_index_is_begun_afresh(tmp_path, data, spoil):
    path = tmp_path / "i.json"
    texts, _ = read_all(path, data)
    path.write_bytes(spoil(path.read_bytes()))
    assert read_all(path, data) == (texts, 3)
    assert read_all(path, data) == (texts, 0)


def test_an_index_that_cannot_be_written_is_said_once_and_does_no_harm(tmp_path, data, caplog):
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        assert read_all(tmp_path / "file" / "i.json", data)[1] == 3
    assert "cannot be written" in caplog.text and "XDG_CACHE_HOME" in caplog.text


def test_an_interrupted_index_forgets_nothing(tmp_path, data):
    path = tmp_path / "i.json"
    read_all(path, data)
    write(data[0], "changed", age=50)
    with pytest.raises(KeyboardInterrupt), FileCache(path) as index:
        index.remember(data[0].name, [data[0]], data[0].read_text)
        raise KeyboardInterrupt
    assert read_all(path, data) == (["changed", "text 1", "text 2"], 0)


KILLED = """
import os, signal, sys
from pathlib import Path
from medseg_gym.cases.files import file_cache
file_cache.SAVE_EVERY = 0
index = file_cache.FileCache(Path(sys.argv[1]))
for number in range(10**6):
    index.remember(str(number), [sys.argv[2]], lambda: "x" * 100)
    if number == 40:
        print("ready", flush=True)
"""


def test_a_killed_process_leaves_a_whole_index(tmp_path, data):
    path = tmp_path / "i.json"
    command = [sys.executable, "-c", KILLED, str(path), str(data[0])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.kill()
    with FileCache(path) as index:
        assert index.remember("7", [data[0]], lambda: "not remembered") == "x" * 100
    for left in path.parent.glob(".*.part"):
        os.utime(left, (0, 0))
    with FileCache(path) as index:
        index.remember("new", [data[0]], lambda: 1)
    assert not list(path.parent.glob(".*.part")), "what the dead left behind is swept up"


TOGETHER = """
import sys
from pathlib import Path
from medseg_gym.cases.files import FileCache
for turn in range(30):
    with FileCache(Path(sys.argv[1])) as index:
        for number in range(200):
            key = f"{number}"
            assert index.remember(key, [sys.argv[2]], lambda: number) == number
        index.remember(f"mine {sys.argv[3]} {turn}", [sys.argv[2]], lambda: turn)
"""


def test_processes_that_share_an_index_do_not_disturb_one_another(tmp_path, data):
    path = tmp_path / "i.json"
    commands = [
        [sys.executable, "-c", TOGETHER, str(path), str(data[0]), str(number)]
        for number in range(3)
    ]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE) for command in commands]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    with FileCache(path) as index:
        assert index.remember("3", [data[0]], lambda: "not remembered") == 3
    assert not list(tmp_path.glob(".*.part"))


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)
    )
)
def test_a_value_is_the_same_at_the_first_and_at_every_later_time(value, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    write(folder / "file", "x", age=100)
    values = []
    for _ in range(2):
        with FileCache(folder / "i.json") as index:
            values.append(index.remember("key", [folder / "file"], lambda: (value, value)))
    assert values[0] == values[1] == [value, value] == json.loads(json.dumps(values[0]))


def test_the_index_lies_in_the_users_cache_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = file_cache.index_path("biomedparse:Größe 1", "root", 1)
    assert path.parent == tmp_path / "medseg_gym" / "index"
    assert path != file_cache.index_path("biomedparse:Größe 1", "root", 2)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert file_cache.index_folder() == tmp_path / ".cache" / "medseg_gym" / "index"
