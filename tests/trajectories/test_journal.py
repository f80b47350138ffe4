"""Laws of the journal: whatever happens to its bytes, no loss goes unsaid, nothing is wrong."""

import json
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.data.synthetic_episodes import synthetic_episode, write_synthetic_episode
from medseg_gym.trajectories import TrajectoryError, TrajectoryStore, TrajectoryWriter
from medseg_gym.trajectories.store.frames import frame, read_frames
from medseg_gym.trajectories.store.journal import (
    DamagedJournal,
    begin_frame,
    header_frame,
    read_journal,
    step_frame,
)
from medseg_gym.trajectories.store.recovery import recover
from medseg_gym.trajectories.store.rows import facts_to_row, step_to_row

SIDE = 24


def interleaved(count=5, at_once=2):
    """Frames of a journal with several episodes at a time, the last one unfinished."""
    frames = [header_frame()]
    originals = {f"w/{i}": synthetic_episode(f"case {i}", 0, SIDE) for i in range(count)}
    running, waiting = {}, list(originals)
    while running or waiting:
        while waiting and len(running) < at_once:
            id = waiting.pop(0)
            frames.append(begin_frame(len(frames), id, originals[id].facts))
            running[id] = 0
        for id in list(running):
            taken, steps = running[id], originals[id].steps
            frames.append(step_frame(len(frames), id, taken, steps[taken], None))
            running[id] += 1
            if running[id] == len(steps):
                del running[id]
    return frames[:-1], originals


FRAMES, ORIGINALS = interleaved()
WHOLE = b"".join(FRAMES)
PLACES = st.integers(0, len(WHOLE) - 1)


def of_version_0_1_0(frames=FRAMES):
    """The same journal without numbers and lengths in its texts."""
    old = []
    for one in read_frames(b"".join(frames)).frames:
        record = {k: v for k, v in one.record.items() if k not in ("frame", "blob")}
        if "of" in record:
            del record["step"]
        text = json.dumps(record).encode()
        body = struct.pack("<I", len(text)) + text + one.blob
        old.append(struct.pack("<II", len(body), zlib.crc32(body)) + body)
    return old


OLD = of_version_0_1_0()


def read(path, data):
    """Episodes by id, and whether an error said that there is damage."""
    file = path / "1-x-000000.journal"
    file.write_bytes(data)
    try:
        return {one.id: one for one in read_journal(file)}, False
    except DamagedJournal as error:
        assert str(file) in str(error)
        return {one.id: one for one in error.episodes}, True


def assert_law(path, data, frames=FRAMES, numbered=True):
    result, answers = read(path, data)
    for id, one in result.items():
        original = ORIGINALS[id]
        assert one.facts == original.facts
        assert one.steps == original.steps[: len(one.steps)], "never another step, never a hole"
    if not answers:
        # What is missing is the end of the file, and nothing behind it could be read.
        kept = read_frames(data).frames
        assert [one[:2] for one in kept] == [
            one[:2] for one in read_frames(b"".join(frames[: len(kept)])).frames
        ]
        assert not any(one in data for one in frames[len(kept) :])
    for id, original in ORIGINALS.items() if numbered or not answers else ():
        mine = [one for one in frames if f'"{id}"'.encode() in one]
        if all(one in data for one in mine):
            steps = len(mine) - 1
            assert len(result[id].steps) == steps, "intact, and behind damage perhaps"
            assert original.steps[:steps] == result[id].steps
    return answers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("journal")


def test_an_undamaged_journal_is_read_whole(folder):
    for frames in (FRAMES, OLD):
        result, answers = read(folder, b"".join(frames))
        assert not answers and list(result) == list(ORIGINALS)
        assert sum(len(one.steps) for one in result.values()) == len(FRAMES) - 1 - len(ORIGINALS)


@settings(max_examples=300, deadline=None)
@given(flips=st.dictionaries(PLACES, st.integers(1, 255), min_size=1, max_size=4))
def test_flipped_bytes(folder, flips):
    data = bytearray(WHOLE)
    for place, bits in flips.items():
        data[place] ^= bits
    answers = assert_law(folder, bytes(data))
    if len(flips) == 1:
        last = len(WHOLE) - len(FRAMES[-1])
        assert answers or next(iter(flips)) >= last, "only the end can pass for torn"


@settings(max_examples=200, deadline=None)
@given(start=PLACES, length=st.integers(1, len(WHOLE)))
def test_cut_bytes(folder, start, length):
    answers = assert_law(folder, WHOLE[:start] + WHOLE[start + length :])
    if start + length >= len(WHOLE):
        assert not answers, "this is what a kill leaves"


@settings(max_examples=200, deadline=None)
@given(
    place=PLACES,
    extra=st.one_of(
        st.binary(min_size=1, max_size=64),
        st.integers(0, len(FRAMES) - 1).map(FRAMES.__getitem__),
        st.integers(1, 5000).map(bytes),
    ),
)
def test_inserted_bytes(folder, place, extra):
    assert_law(folder, WHOLE[:place] + extra + WHOLE[place:])


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, len(FRAMES) - 1), count=st.integers(1, len(FRAMES)))
def test_whole_frames_cut_or_repeated(folder, place, count):
    rest = FRAMES[place + count :]
    answers = assert_law(folder, b"".join(FRAMES[:place] + rest))
    assert answers == bool(rest) or not place
    assert assert_law(folder, b"".join(FRAMES[: place + 1] + FRAMES[place:])), "a frame twice"


@pytest.mark.parametrize("place", range(len(FRAMES)))
@pytest.mark.parametrize("field", ["length", "checksum", "length of the text"])
def test_a_damaged_head_anywhere_loses_no_other_episode(folder, place, field):
    start = len(b"".join(FRAMES[:place])) + 4 * ["length", "checksum", "length of the text"].index(
        field
    )
    for bit in (0, 7, 20, 31):
        data = bytearray(WHOLE)
        data[start + bit // 8] ^= 1 << bit % 8
        assert assert_law(folder, bytes(data)), "every one is said"
        if field == "length":
            result, _ = read(folder, bytes(data))
            assert len(result) == len(ORIGINALS), "the other length tells where it ends"


def test_every_end_of_a_kill_is_dropped_without_a_word(folder):
    starts = [len(b"".join(FRAMES[:number])) for number in range(len(FRAMES))]
    near = {start + shift for start in starts for shift in range(-2, 14)}  # head, length, text
    for end in sorted({*range(0, len(WHOLE), 101), *near} & set(range(len(WHOLE)))):
        for zeros in (0, 1, 4096):
            assert not assert_law(folder, WHOLE[:end] + bytes(zeros))


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, len(b"".join(OLD)) - 1), bits=st.integers(1, 255))
def test_journals_of_0_1_0(folder, place, bits):
    data = bytearray(b"".join(OLD))
    data[place] ^= bits
    # These do not say which step they are, so what ran across the damage is kept up to it.
    answers = assert_law(folder, bytes(data), OLD, numbered=False)
    assert answers or place >= len(data) - len(OLD[-1])


def test_what_had_ended_before_damage_or_began_after_it_is_kept_of_0_1_0(folder):
    alone = of_version_0_1_0(interleaved(at_once=1)[0])
    for hit in range(1, len(alone)):
        data = bytearray(b"".join(alone))
        data[len(b"".join(alone[:hit])) + 3] ^= 64
        result, answers = read(folder, bytes(data))
        last = hit == len(alone) - 1  # an unnumbered frame says nothing of its length
        assert (answers or last) and len(result) >= len(ORIGINALS) - 1


def test_a_length_that_was_damaged_costs_nothing_and_the_file_is_set_aside(tmp_path):
    expected = [synthetic_episode(f"case {i}", 0, SIDE) for i in range(51)]
    writer = TrajectoryWriter(tmp_path / "whole")
    for one in expected:
        write_synthetic_episode(writer, one)
    (journal,) = (tmp_path / "whole").glob("*.journal")
    data = bytearray(journal.read_bytes())
    first = len(header_frame())
    data[first + 3] ^= 0x40  # the length of the first episode's first frame
    writer.close()
    store = tmp_path / "store"
    TrajectoryWriter(store).close()
    damaged = store / "1-x-000000.journal"
    damaged.write_bytes(data)
    with pytest.raises(TrajectoryError, match=f"{damaged.name} is damaged at byte {first}; 51 fin"):
        TrajectoryStore(store)
    assert damaged.read_bytes() == data, "reading changes nothing"
    with pytest.raises(TrajectoryError, match=r"51 finished .*kept as 1-x-000000.journal.damaged"):
        TrajectoryWriter(store)
    assert (store / f"{damaged.name}.damaged").read_bytes() == data
    result = TrajectoryStore(store)
    assert sorted(result.keys()) == sorted(one.key for one in expected)
    assert [path.name for path in result.damaged] == [f"{damaged.name}.damaged"]
    assert all(result.episode(one.key).steps == one.steps for one in expected)
    with TrajectoryWriter(store) as again:  # it is said once
        write_synthetic_episode(again, synthetic_episode("later", 0, SIDE))
    assert len(TrajectoryStore(store)) == 52


def test_one_damaged_journal_keeps_no_other_from_its_chunk(tmp_path):
    store = tmp_path / "store"
    TrajectoryWriter(store).close()
    (store / "1-x-000000.journal").write_bytes(WHOLE[:200] + b"?" + WHOLE[200:])
    (store / "2-x-000000.journal").write_bytes(WHOLE)
    with pytest.raises(TrajectoryError, match="1-x-000000"):
        recover(store)
    assert not list(store.glob("*.journal")) and not list(store.glob("[0-9]*.lock"))
    assert len(TrajectoryStore(store)) == len(ORIGINALS) - 1
    assert recover(store) == 0


def test_the_command_line_recovers_and_says_what_it_set_aside(tmp_path):
    from typer.testing import CliRunner

    from medseg_gym.cli.trajectories import trajectories_app

    def call(command):
        return CliRunner().invoke(trajectories_app, [command, str(tmp_path)])

    TrajectoryWriter(tmp_path).close()
    (tmp_path / "1-x-000000.journal").write_bytes(WHOLE[:500] + WHOLE[501:])
    (tmp_path / "2-x-000000.journal").write_bytes(WHOLE)
    assert "`medseg trajectories recover STORE` keeps these" in str(call("summary").exception)
    assert "is kept as 1-x-000000.journal.damaged" in str(call("recover").exception)
    assert "0 journals" in call("recover").output
    assert "set aside because they were damaged: 1-x-000000.journal.d" in call("summary").output


def test_a_text_that_looks_like_a_frame_is_none(folder):
    trap = frame(1, {"begin": "evil"}).decode("latin-1")
    inside = b"".join([header_frame(), frame(1, {"begin": trap[:4], "mark": '{"of": ' + trap})])
    result = read_frames(inside)
    assert len(result.frames) == 2 and not result.damaged


def test_rows_carry_no_name_of_a_frame():
    one = synthetic_episode("case", 0, SIDE)
    columns = {**facts_to_row(one.facts), **step_to_row(one.steps[0])}
    assert not {"frame", "blob", "begin", "of"} & set(columns)
