"""Files and folders that are there whole or not at all, and the lock that writers share.

What is written lies beside its place first, under a hidden name that ends in ".part"; it is forced
to the disk and then renamed. A kill, a power cut or a full disk therefore leaves the old content or
the new one. Every failure is an error that names the path and what to do about it.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from medseg_gym.errors import MedSegError

if TYPE_CHECKING:
    from filelock import FileLock

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TORCH = ("PytorchStreamWriter", "inline_container", "iostream error")  # of `torch.save`
_ALMOST_NOTHING = 64 << 10  # bytes; libraries that fail without an OSError leave about this much


@contextmanager
def atomic_path(
    path: str | Path, error: type[MedSegError] = MedSegError, durable: bool = True
) -> Iterator[Path]:
    """Give a name to write a file to, which becomes `path` when the block ends well.

    Args:
        path: Of the file; its folder is made if it is missing.
        error: What a failure of the disk is raised as.
        durable: Force the content to the disk first. False is for what can be made again, such as
            the entries of a cache, where a power cut may cost the file.

    Raises:
        MedSegError: As `error`: it cannot be written. What stood there before is unchanged.
    """
    path = Path(path)
    temporary = _beside(path)
    try:
        with named_failures(path, error):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if durable:
                _force(temporary)
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def atomic_write(
    path: str | Path,
    content: bytes | memoryview | str,
    error: type[MedSegError] = MedSegError,
    durable: bool = True,
) -> None:
    """Write a file whole or not at all.

    Args:
        path: Of the file; its folder is made if it is missing.
        content: Bytes, or text that is written as UTF-8.
        error: See `atomic_path`, as for the next.
        durable: Likewise.

    Raises:
        MedSegError: As `error`: it cannot be written. What stood there before is unchanged.
    """
    with atomic_path(path, error, durable) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_folder(path: str | Path, error: type[MedSegError] = MedSegError) -> Iterator[Path]:
    """Give an empty folder to write into, which becomes `path` when the block ends well.

    A folder that is there already is replaced. What killed processes left beside it is removed.

    Args:
        path: Of the folder.
        error: What a failure of the disk is raised as.

    Raises:
        MedSegError: As `error`: it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    try:
        with named_failures(path, error):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _force(file)
            shutil.rmtree(path, ignore_errors=True)
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def set_aside(path: Path) -> Path:
    """Rename a damaged file to a free name beside it, `NAME.damaged` or `NAME.damaged-2`.

    Args:
        path: Of the file.

    Returns:
        Its new path.
    """
    aside, number = path.with_name(f"{path.name}.damaged"), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{number}")
    os.replace(path, aside)
    return aside


@contextmanager
def named_failures(path: str | Path, error: type[MedSegError] = MedSegError) -> Iterator[None]:
    """Turn what a failing disk raises in a block into an error that names the path.

    Args:
        path: What is being written.
        error: What it is raised as.
    """
    try:
        yield
    except OSError as cause:
        of_the_system = cause.errno is not None or _is_of_the_disk(path, cause)
        if not of_the_system or not _concerns(Path(path), cause):
            raise  # of another file, which was being read, say; or no failure of a disk at all
        raise error(_what_failed(path, cause.strerror or str(cause), cause.errno)) from cause
    except Exception as cause:
        # Libraries that write from C++ say so in errors of their own.
        if isinstance(cause, MedSegError) or not _is_of_the_disk(path, cause):
            raise
        raise error(_what_failed(path, str(cause).splitlines()[0], errno.ENOSPC)) from cause


@contextmanager
def locked(path: str | Path, error: type[MedSegError] = MedSegError) -> Iterator[None]:
    """Keep other threads and processes out of a block that names the same file.

    Args:
        path: Of the file that is protected; the lock is `PATH.lock` beside it and stays there.
        error: What a failure of the disk is raised as.
    """
    from filelock import FileLock  # late: a first step needs no lock

    with named_failures(path, error):
        lock = FileLock(f"{path}.lock", thread_local=False)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def try_lock(path: str | Path) -> FileLock | None:
    """Take a lock that dies with this process; None where somebody holds it.

    Args:
        path: Of the lock file itself. `drop_lock` releases the lock and removes the file.
    """
    from filelock import FileLock, Timeout

    while True:
        lock = FileLock(str(path), timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            return None
        if Path(path).exists():
            return lock
        lock.release()  # its last holder removed the file while we took the lock: it locks nothing


def drop_lock(lock: FileLock) -> None:
    """Release a lock of `try_lock` and remove its file."""
    with suppress(OSError):  # Windows removes no file that is open
        Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")


def _force(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _concerns(path: Path, cause: OSError) -> bool:
    """Return True for a failure of this path, of what is in or beside it, or of a folder above."""
    if not isinstance(cause.filename, (str, bytes)):
        return True
    named, folder = Path(os.fsdecode(cause.filename)).absolute(), path.absolute().parent
    return named.is_relative_to(folder) or folder.is_relative_to(named)


def _is_of_the_disk(path: str | Path, cause: Exception) -> bool:
    if type(cause).__name__ == "SafetensorError":
        return True
    if isinstance(cause, RuntimeError) and any(words in str(cause) for words in _TORCH):
        return True
    with suppress(OSError):
        return shutil.disk_usage(Path(path).parent).free < _ALMOST_NOTHING
    return False


def _what_failed(path: str | Path, why: str, number: int | None) -> str:
    way_out = "; make room on that disk, or name another place" if number in _FULL else ""
    return f"{path} cannot be written: {why}{way_out}"
