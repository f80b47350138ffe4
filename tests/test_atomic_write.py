"""A file or folder is there whole or not at all, and a disk that refuses is named."""

import errno
import os
import resource
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from medseg_gym.errors import CaseError, MedSegError
from medseg_gym.storage.atomic_write import (
    atomic_folder,
    atomic_path,
    atomic_write,
    drop_lock,
    locked,
    named_failures,
    try_lock,
)


def test_a_file_is_replaced_or_left(tmp_path):
    path = tmp_path / "new" / "file.txt"
    atomic_write(path, "old é")
    assert path.read_text(encoding="utf-8") == "old é"
    with pytest.raises(RuntimeError), atomic_path(path) as part:
        part.write_text("half")
        raise RuntimeError("stop")
    assert path.read_text(encoding="utf-8") == "old é" and os.listdir(path.parent) == ["file.txt"]
    atomic_write(path, memoryview(b"new"), durable=False)
    assert path.read_bytes() == b"new"


def test_a_folder_is_replaced_or_left(tmp_path):
    path = tmp_path / "a" / "folder"
    with atomic_folder(path) as part:
        (part / "deep").mkdir()
        (part / "deep" / "file").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(path) as part:
        (part / "half").write_text("half")
        raise RuntimeError("stop")
    assert (path / "deep" / "file").read_text() == "old" and os.listdir(path.parent) == ["folder"]
    with atomic_folder(path) as part:
        (part / "other").write_text("new")
    assert os.listdir(path) == ["other"]


@pytest.fixture
def small_files():
    """No file of this process may grow beyond 64 KiB: what a full disk is like."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITERS = {
    "bytes": lambda part: part.write_bytes(bytes(1 << 20)),
    "torch": lambda part: torch.save({"w": torch.zeros(1 << 18)}, part),
    "safetensors": lambda part: save_file({"w": torch.zeros(1 << 18)}, part),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_has_a_name_whoever_writes(tmp_path, small_files, kind):
    path = tmp_path / "weights"
    path.write_text("old")
    with pytest.raises(CaseError, match=r"weights cannot be written: .*make room"):
        with atomic_path(path, CaseError) as part:
            WRITERS[kind](part)
    with pytest.raises(CaseError, match=r"folder cannot be written: .*make room"):
        with atomic_folder(tmp_path / "folder", CaseError) as part:
            WRITERS[kind](part / "weights")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["weights"]


def test_errors_of_other_files_keep_their_own_names(tmp_path):
    with pytest.raises(FileNotFoundError), named_failures(tmp_path / "a" / "b"):
        open("/nowhere/at/all")
    with pytest.raises(OSError, match="no number"), named_failures(tmp_path / "a"):
        raise OSError("no number")
    with pytest.raises(MedSegError, match=r"a/b cannot be written: Is a dir"):
        atomic_write(tmp_path / "a" / "b" / "c", "")
        atomic_write(tmp_path / "a" / "b", "")
    with pytest.raises(MedSegError, match=r"c/d cannot be written: (File exists|Not a dir)"):
        atomic_write(tmp_path / "a" / "b" / "c" / "d", "")
    with pytest.raises(MedSegError, match=r"^mine$"), named_failures(tmp_path):
        raise MedSegError("mine")
    with pytest.raises(MedSegError, match="quota"), named_failures(tmp_path / "x"):
        raise OSError(errno.EDQUOT, "quota")


def test_a_lock_dies_with_its_process(tmp_path):
    code = (
        "import sys; from medseg_gym.storage.atomic_write import try_lock\n"
        f"lock = try_lock({str(tmp_path / 'x.lock')!r})\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "held\n"
        assert try_lock(tmp_path / "x.lock") is None
        process.kill()
    lock = try_lock(tmp_path / "x.lock")
    assert lock is not None and try_lock(tmp_path / "x.lock") is None
    drop_lock(lock)
    assert not (tmp_path / "x.lock").exists()


def test_a_block_that_is_locked_keeps_others_out(tmp_path):
    with locked(tmp_path / "file"):
        assert try_lock(tmp_path / "file.lock") is None
    again = try_lock(tmp_path / "file.lock")
    assert again is not None
    drop_lock(again)
