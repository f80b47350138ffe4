"""One reader for every file of lines: a torn end costs its line, damage elsewhere has a name."""

import errno
import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg_gym.errors import CaseError, MedSegError
from medseg_gym.storage.line_files import append_rows, mend, read_rows, write_rows

ROWS = [{"n": 1, "text": 'a "word"\n\u2028 é'}, {"n": [1.5, None], "x": {}}, {"n": 3}]
WHOLE = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.mark.parametrize("end", range(len(WHOLE) + 1))
@pytest.mark.parametrize("zeros", [0, 3])
def test_a_torn_end_costs_its_line_and_is_never_written_onto(tmp_path, end, zeros):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(WHOLE[:end] + bytes(zeros))
    kept = read_rows(path)
    lines = WHOLE[:end].count(b"\n")
    assert kept == ROWS[: len(kept)] and lines <= len(kept) <= lines + 1
    append_rows(path, [{"later": 1}])
    assert read_rows(path) == [*kept, {"later": 1}]
    assert path.read_bytes().endswith(b'{"later": 1}\n')


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, len(WHOLE) - 1), bits=st.integers(1, 255))
def test_damage_elsewhere_is_named_or_a_value(tmp_path_factory, place, bits):
    data = bytearray(WHOLE)
    data[place] ^= bits
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_bytes(data)
    line = WHOLE[:place].count(b"\n")
    try:
        result = read_rows(path)
    except MedSegError as error:
        assert str(error).startswith(f"{path}:{line + 1}: ")
    else:
        others = [row for i, row in enumerate(ROWS) if i != line]
        assert all(row in result for row in others) or WHOLE[place] == ord("\n")


def test_what_a_line_may_not_be(tmp_path):
    path = tmp_path / "rows.jsonl"
    for bad in (b"1\n", b"[]\n", b"null\n", b'{"a": 1{"a": 2}\n', b"\xff\n", b"[" * 10**5 + b"\n"):
        path.write_bytes(b'{"a": 1}\n' + bad + b'{"a": 3}\n')
        with pytest.raises(CaseError, match=r"rows\.jsonl:2: .*; go and mend it"):
            read_rows(path, CaseError, "go and mend it")
    path.write_bytes(b'{"a": 1}\r\n\n{"a": 2}\n')
    assert read_rows(path) == [{"a": 1}, {"a": 2}]
    assert read_rows(tmp_path / "none") == [] and not mend(tmp_path / "none")
    with pytest.raises(MedSegError, match="cannot be read"):
        read_rows(tmp_path)
    with pytest.raises(MedSegError, match="cannot be written as JSON"):
        append_rows(path, [{"a": float("nan")}])
    assert len(read_rows(path)) == 2


def test_all_rows_or_none_on_a_full_disk(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    write_rows(path, ROWS)

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("medseg_gym.storage.line_files.os.fsync", full)
        with pytest.raises(
            MedSegError, match=r"rows\.jsonl cannot be written: No space.*make room"
        ):
            append_rows(path, ROWS, durable=True)
    assert path.read_bytes() == WHOLE
    append_rows(path, ROWS)
    assert read_rows(path) == ROWS * 2


def test_threads_append_whole_lines(tmp_path):
    path = tmp_path / "rows.jsonl"
    threads = [
        threading.Thread(target=lambda i=i: [append_rows(path, [{"n": i}]) for _ in range(20)])
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_rows(path)) == 80
