import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.data.synthetic_episodes import synthetic_episode, write_synthetic_episode
from benchmarks.data.writer_kills import kill_writers
from medseg_gym.prompts import AddPoint
from medseg_gym.trajectories import TrajectoryError, TrajectoryStore, TrajectoryWriter
from medseg_gym.trajectories.store.folder import MANIFEST
from medseg_gym.trajectories.store.mask_codec import pack_mask, unpack_mask
from medseg_gym.trajectories.store.recovery import recover
from medseg_gym.trajectories.store.rows import FORMAT_VERSION, SCHEMA

SIDE = 48


def episodes(count, seed=0):
    return [synthetic_episode(f"case {i}", seed, SIDE) for i in range(count)]


def assert_holds(store, expected):
    assert sorted(store.keys()) == sorted(one.key for one in expected)
    for one in expected:
        actual = store.episode(one.key)
        assert (actual.facts, actual.steps) == (one.facts, one.steps)


def leave_a_journal(path, count=3):
    """A store as a writer leaves it when it is killed: no `close`."""
    writer = TrajectoryWriter(path)
    for one in episodes(count):
        write_synthetic_episode(writer, one)
    id = writer.begin(synthetic_episode("running", 0, SIDE).facts)
    writer.add([(id, synthetic_episode("running", 0, SIDE).steps[0])])
    return writer


def journal(path):
    (actual,) = path.glob("*.journal")
    return actual


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (8, 8), (31, 17), (256, 200)])
def test_masks_survive_packing(shape):
    for density in (0, 0.3, 1):
        mask = np.random.default_rng(0).random(shape) < density
        np.testing.assert_array_equal(unpack_mask(pack_mask(mask), *shape), mask)
    with pytest.raises(TrajectoryError):
        unpack_mask(pack_mask(mask), shape[0] + 9, shape[1])
    with pytest.raises(TrajectoryError):
        unpack_mask(b"no", *shape)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_written_is_read(chunk, tmp_path):
    expected = episodes(10)
    with TrajectoryWriter(tmp_path, chunk_episodes=chunk, fsync=chunk == 4) as writer:
        for number, one in enumerate(expected):
            write_synthetic_episode(writer, one)
            assert_holds(TrajectoryStore(tmp_path), expected[: number + 1])  # while it goes on
    store = TrajectoryStore(tmp_path)
    assert_holds(store, expected)
    assert [one.key for one in store] == store.keys() and len(store) == 10
    table = store.to_table()
    assert table.schema.equals(SCHEMA, check_metadata=True)
    assert table.num_rows == sum(len(one.steps) for one in expected)
    assert table["reward"].to_pylist() == [s.reward for one in store for s in one.steps]
    assert store.to_table(["case", "dice"]).column_names == ["case", "dice"]
    with pytest.raises(TrajectoryError, match="no column"):
        store.to_table(["no"])
    with pytest.raises(TrajectoryError, match="no finished episode"):
        store.episode(("nobody", 0, 0))


def test_odd_values_survive(tmp_path):
    one = synthetic_episode("odd \u00e9 \U0001f9e0", 2**62, SIDE)
    odd = AddPoint(np.nextafter(0, 1), 1 / 3)
    first = replace(
        one.steps[0], prompt=odd, error='"\n\x00', terms={}, reward=float("inf"), dice=5e-324
    )
    unreadable = replace(one.steps[0], prompt=None, valid=False)
    one = replace(one, steps=(first, unreadable, *one.steps[1:]))
    with TrajectoryWriter(tmp_path) as writer:
        write_synthetic_episode(writer, one)
        assert_holds(TrajectoryStore(tmp_path), [one])
    assert_holds(TrajectoryStore(tmp_path), [one])


def test_running_episodes_are_carried_over_and_kept_as_unfinished(tmp_path):
    running = synthetic_episode("running", 0, SIDE)
    with TrajectoryWriter(tmp_path, chunk_episodes=2) as writer:
        id = writer.begin(running.facts)
        writer.add([(id, running.steps[0])])
        for one in episodes(5):
            write_synthetic_episode(writer, one)
        (actual,) = TrajectoryStore(tmp_path).episodes(unfinished=True)
        assert actual.steps == running.steps[:1]
    (actual,) = TrajectoryStore(tmp_path).episodes(unfinished=True)
    assert actual.steps == running.steps[:1]
    with pytest.raises(TrajectoryError, match="closed"):
        write_synthetic_episode(writer, running)


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 150, 400])
def test_a_torn_tail_is_dropped(cut, tmp_path):
    writer = leave_a_journal(tmp_path / "a")
    whole = journal(tmp_path / "a").read_bytes()
    torn = tmp_path / "b"
    TrajectoryWriter(torn).close()
    (torn / "1-x-000000.journal").write_bytes(whole[:-cut] + b"\0" * (cut % 3))
    assert set(episodes_of(torn)) <= set(episodes_of(tmp_path / "a"))
    assert_holds(TrajectoryStore(torn), episodes(3))
    assert recover(torn) == 1 and not list(torn.glob("*.journal"))
    assert_holds(TrajectoryStore(torn), episodes(3))
    assert recover(tmp_path / "a") == 0, "its writer is alive"
    writer.close()


def episodes_of(path):
    return TrajectoryStore(path).keys()


def test_damage_is_named(tmp_path):
    writer = leave_a_journal(tmp_path)
    damaged = bytearray(journal(tmp_path).read_bytes())
    damaged[300] ^= 1
    writer.close()
    (tmp_path / "1-x-000000.journal").write_bytes(damaged)
    with pytest.raises(TrajectoryError, match=r"1-x-000000\.journal is damaged at byte"):
        TrajectoryStore(tmp_path)
    (tmp_path / "1-x-000000.journal").unlink()
    (chunk,) = tmp_path.glob("*.parquet")
    good = chunk.read_bytes()
    for bad in (good[:-50], b"", good[: len(good) // 2], b"PAR1" * 20):
        chunk.write_bytes(bad)
        with pytest.raises(TrajectoryError, match=rf"{re.escape(chunk.name)} is damaged"):
            list(TrajectoryStore(tmp_path))
    for place in range(4, len(good), 397):
        flipped = bytearray(good)
        flipped[place] ^= 255
        chunk.write_bytes(flipped)
        with pytest.raises(TrajectoryError, match=re.escape(chunk.name)):
            list(TrajectoryStore(tmp_path))
        with pytest.raises(TrajectoryError, match=re.escape(chunk.name)):
            TrajectoryStore(tmp_path).to_table(["dice"])
    chunk.write_bytes(good)
    assert_holds(TrajectoryStore(tmp_path), episodes(3))


def test_foreign_folders_and_newer_versions_are_refused(tmp_path):
    with pytest.raises(TrajectoryError, match="there is no trajectory store"):
        TrajectoryStore(tmp_path / "none")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("mine")
    with pytest.raises(TrajectoryError, match="not a trajectory store"):
        TrajectoryStore(tmp_path / "foreign")
    with pytest.raises(TrajectoryError, match="other files"):
        TrajectoryWriter(tmp_path / "foreign")
    leave_a_journal(tmp_path / "s").close()
    (chunk,) = (tmp_path / "s").glob("*.parquet")
    table = pq.read_table(chunk)
    newer = {"format": "medseg_gym trajectories", "version": str(FORMAT_VERSION + 1)}
    chunk.unlink()
    pq.write_table(table.replace_schema_metadata(newer), tmp_path / "s" / "a.parquet")
    with pytest.raises(
        TrajectoryError, match=rf"a\.parquet has format version {FORMAT_VERSION + 1}"
    ):
        TrajectoryStore(tmp_path / "s")
    (tmp_path / "s" / "format.json").write_text(json.dumps(newer))
    for opening in (TrajectoryStore, TrajectoryWriter):
        with pytest.raises(
            TrajectoryError, match=rf"format.json has format version {FORMAT_VERSION + 1}"
        ):
            opening(tmp_path / "s")


def test_a_key_twice_is_counted_and_given_once(tmp_path):
    for _ in range(2):
        with TrajectoryWriter(tmp_path) as writer:
            write_synthetic_episode(writer, synthetic_episode("case", 0, SIDE))
    store = TrajectoryStore(tmp_path)
    assert len(store) == 1 and store.duplicates == 1
    assert store.to_table().num_rows == len(synthetic_episode("case", 0, SIDE).steps)


def test_two_writers_at_once(tmp_path):
    with TrajectoryWriter(tmp_path, 2) as one, TrajectoryWriter(tmp_path, 3) as two:
        for first, second in zip(episodes(7), episodes(7, seed=1), strict=True):
            write_synthetic_episode(one, first)
            write_synthetic_episode(two, second)
    assert_holds(TrajectoryStore(tmp_path), [*episodes(7), *episodes(7, seed=1)])


def test_killed_writers_lose_nothing(tmp_path):
    result = kill_writers(tmp_path / "store", kills=3, seed=1)
    assert not result.lost and not result.lost_steps and not result.leftovers
    assert result.recorded + result.bystander > 0


def test_a_disk_that_is_full_says_so_and_leaves_whole_frames(tmp_path, monkeypatch):
    writer = leave_a_journal(tmp_path)
    real, calls = __import__("os").write, []

    def full(file, data):
        calls.append(1)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(file, bytes(data)[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr("medseg_gym.trajectories.store.writer.os.write", full)
        with pytest.raises(TrajectoryError, match="No space left"):
            write_synthetic_episode(writer, synthetic_episode("later", 0, SIDE))
    assert_holds(TrajectoryStore(tmp_path), episodes(3))
    write_synthetic_episode(writer, synthetic_episode("after", 0, SIDE))
    assert_holds(TrajectoryStore(tmp_path), [*episodes(3), synthetic_episode("after", 0, SIDE)])
    writer.close()


def test_a_chunk_that_is_gone_is_missed(tmp_path):
    with TrajectoryWriter(tmp_path, chunk_episodes=2) as writer:
        for one in episodes(5):
            write_synthetic_episode(writer, one)
    chunks = sorted(tmp_path.glob("*.parquet"))
    lines = [json.loads(line) for line in (tmp_path / MANIFEST).read_text().splitlines()]
    assert [line["chunk"] for line in lines] == [chunk.name for chunk in chunks]
    assert [line["episodes"] for line in lines] == [2, 2, 1]
    assert sum(line["steps"] for line in lines) == sum(len(one.steps) for one in episodes(5))
    content = chunks[1].read_bytes()
    chunks[1].unlink()
    with pytest.raises(TrajectoryError, match=f"{chunks[1].name} with 2 episodes is missing"):
        TrajectoryStore(tmp_path)
    chunks[0].rename(tmp_path / "renamed.parquet")
    with pytest.raises(TrajectoryError, match="and 1 more chunks with 4 episodes is missing"):
        TrajectoryStore(tmp_path)
    (tmp_path / "renamed.parquet").rename(chunks[0])
    chunks[1].write_bytes(content)
    assert_holds(TrajectoryStore(tmp_path), episodes(5))
    lines[2]["episodes"] = 2
    (tmp_path / MANIFEST).write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(TrajectoryError, match="holds 1 episodes and"):
        TrajectoryStore(tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps(lines[0]) + "\n" + '{"chunk": "torn')
    assert_holds(TrajectoryStore(tmp_path), episodes(5))  # chunks without a line count too
    with TrajectoryWriter(tmp_path) as writer:
        write_synthetic_episode(writer, synthetic_episode("later", 0, SIDE))
    actual = [json.loads(line) for line in (tmp_path / MANIFEST).read_text().splitlines()]
    assert len(actual) == 2 and actual[0] == lines[0], "nothing is written onto half a line"


def test_a_recovered_journal_is_in_the_manifest(tmp_path):
    leave_a_journal(tmp_path / "a")
    TrajectoryWriter(tmp_path / "b").close()
    left = tmp_path / "b" / "1-x-000000.journal"
    left.write_bytes(journal(tmp_path / "a").read_bytes())
    assert recover(tmp_path / "b") == 1
    (chunk,) = (tmp_path / "b").glob("*.parquet")
    chunk.unlink()
    with pytest.raises(TrajectoryError, match="with 4 episodes is missing"):
        TrajectoryStore(tmp_path / "b")


@pytest.mark.parametrize("when", ["journal", "chunk", "manifest", "last chunk"])
def test_a_disk_that_is_full_between_chunks_loses_nothing(tmp_path, monkeypatch, when):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    writer = TrajectoryWriter(tmp_path, chunk_episodes=3)
    for one in episodes(2):
        write_synthetic_episode(writer, one)
    where = {
        "journal": "medseg_gym.trajectories.store.writer.os.open",
        "manifest": "medseg_gym.storage.line_files.mend",
    }.get(when, "medseg_gym.storage.atomic_write._force")
    with monkeypatch.context() as patch:
        patch.setattr(where, full)
        with pytest.raises(TrajectoryError, match=r"cannot be written: No space.*make room"):
            writer.close() if when == "last chunk" else write_synthetic_episode(
                writer, episodes(3)[2]
            )
    count = 2 if when == "last chunk" else 3
    assert_holds(TrajectoryStore(tmp_path), episodes(count))
    if when != "last chunk":
        write_synthetic_episode(writer, synthetic_episode("later", 0, SIDE))
    writer.close()
    with TrajectoryWriter(tmp_path):
        pass
    expected = episodes(count) + (
        [] if when == "last chunk" else [synthetic_episode("later", 0, SIDE)]
    )
    assert_holds(TrajectoryStore(tmp_path), expected)
    assert not list(tmp_path.glob("*.journal")) and not list(tmp_path.glob("*.part"))


def test_a_closed_writer_has_nothing_more_to_abandon(tmp_path):
    writer = TrajectoryWriter(tmp_path)
    running = writer.begin(synthetic_episode("running", 0, SIDE).facts)
    writer.add([(running, synthetic_episode("running", 0, SIDE).steps[0])])
    begun = writer.begin(synthetic_episode("begun", 0, SIDE).facts)
    writer.close()
    writer.abandon(running)
    writer.abandon(begun)
    assert len(list(TrajectoryStore(tmp_path).episodes(unfinished=True))) == 1


def test_a_lock_says_who_lives(tmp_path):
    writer = leave_a_journal(tmp_path)
    assert recover(tmp_path) == 0 and len(list(tmp_path.glob("[0-9]*.lock"))) == 1
    writer.close()
    assert not list(tmp_path.glob("[0-9]*.lock"))
    (tmp_path / "9-dead.lock").touch()
    (tmp_path / "9-dead-000000.journal.part").touch()
    assert recover(tmp_path) == 0
    assert not list(tmp_path.glob("9-dead*")), "killed before its first journal"


def test_without_pyarrow_the_extra_is_named():
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "import medseg_gym.cli.main\n"
        "from medseg_gym.trajectories import TrajectoryError\n"
        "try:\n    from medseg_gym.trajectories import TrajectoryStore\n"
        "except TrajectoryError as error:\n    print(error)\n"
    )
    actual = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "medseg-gym[trajectories]" in actual.stdout, actual.stderr


def test_reading_needs_no_torch(tmp_path):
    leave_a_journal(tmp_path).close()
    code = (
        "import sys; from medseg_gym.trajectories import TrajectoryStore\n"
        f"print(len(TrajectoryStore({str(tmp_path)!r})), 'torch' in sys.modules)\n"
    )
    actual = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert actual.stdout == "3 False\n", actual.stderr
