"""The persistent index: results of reading files, kept until one of those files changes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from medseg_gym.errors import MedSegError
from medseg_gym.storage.atomic_write import atomic_write
from medseg_gym.storage.cache_folder import cache_folder

FORMAT = 1
SAVE_EVERY = 30.0  # seconds: what a kill can cost
TOO_YOUNG = 100_000_000  # nanoseconds: a file may change again within the clock of its file system
_NEVER = [-1, -1]  # equals no stamp
_log = logging.getLogger(__name__)


def index_folder() -> Path:
    """Return the folder of indices: `medseg_gym/index` in the user's cache directory."""
    return cache_folder("index")


def index_path(name: str, *identity: object) -> Path:
    """Return the file of an index.

    Args:
        name: Readable start of the file name.
        identity: What the index depends on besides the files: format, version, root, options.
    """
    digest = hashlib.blake2b(repr(identity).encode(), digest_size=10).hexdigest()
    readable = "".join(c if c.isascii() and c.isalnum() else "-" for c in name)[:60]
    return index_folder() / f"{readable}-{digest}.json"


class FileCache:
    """Cache of values computed from files, valid until a file's size or time changes.

    Used as a context manager. Entries that were not asked for are dropped when it closes normally,
    so the index never outgrows the data. It is written beside and then renamed, so a kill leaves
    the old or the new index, and of two processes the later one's stays: both are right.

    Args:
        path: The index file; None keeps nothing. An unreadable or foreign one is begun afresh.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._held: dict[str, list] = _load(path)
        self._kept: dict[str, list] = {}
        self._stamps: dict[str, list[int] | None] = {}
        self._dirty = False
        self._saved = time.monotonic()
        self.computed = 0
        """Number of values that were not in the index."""

    def remember(self, key: str, files: Iterable[str | Path], make: Callable[[], Any]) -> Any:
        """Return what `make()` returned when the files were as they are now.

        Args:
            key: Unique within the index.
            files: What the value is computed from; missing ones count as missing.
            make: Computes the value, which must survive JSON (tuples come back as lists).

        Returns:
            The value as JSON gives it back, also at the first time.
        """
        stamps = [self._stamp(os.fspath(file)) for file in files]
        entry = self._held.get(key)
        if entry is None or entry[0] != stamps:
            value = json.loads(json.dumps(make()))
            young = any(s is not None and time.time_ns() - s[1] < TOO_YOUNG for s in stamps)
            entry = [[_NEVER] if young else stamps, value]
            self._dirty = True
            self.computed += 1
        self._kept[key] = entry
        if self._dirty and time.monotonic() - self._saved > SAVE_EVERY:
            self._save({**self._held, **self._kept})
        return entry[1]

    def _stamp(self, file: str) -> list[int] | None:
        if file not in self._stamps:
            try:
                status = os.stat(file)
                self._stamps[file] = [status.st_size, status.st_mtime_ns]
            except (OSError, ValueError):
                self._stamps[file] = None
        return self._stamps[file]

    def __enter__(self) -> FileCache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if kind is not None:  # not everything was asked for: forget nothing
            self._kept = {**self._held, **self._kept}
        if self._dirty or len(self._kept) != len(self._held):
            self._save(self._kept)

    def _save(self, entries: dict[str, list]) -> None:
        self._saved = time.monotonic()
        if self.path is None:
            return
        body = json.dumps(entries, separators=(",", ":")).encode()
        try:
            atomic_write(self.path, _head(body) + body, durable=False)
        except MedSegError as error:
            _log.warning(
                "the index %s, so the data is read again next time; "
                "set XDG_CACHE_HOME to a folder that can be written to",
                error,
            )
        else:
            self._dirty = False
            _sweep(self.path)


def _head(body: bytes) -> bytes:
    digest = hashlib.blake2b(body, digest_size=16).hexdigest()
    return f'{{"medseg_gym index": {FORMAT}, "digest": "{digest}"}}\n'.encode()


def _load(path: Path | None) -> dict[str, list]:
    if path is None:
        return {}
    with suppress(OSError, ValueError, RecursionError):
        head, _, body = path.read_bytes().partition(b"\n")
        if head + b"\n" == _head(body):
            entries: dict[str, list] = json.loads(body)
            return entries
    return {}


def _sweep(path: Path) -> None:
    """Remove what killed processes left beside an index an hour ago or earlier."""
    for left in path.parent.glob(f".{path.name}.*.part"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > 3600:
                left.unlink()
