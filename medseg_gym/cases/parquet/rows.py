"""Read rows of a parquet file one at a time with little memory, whatever its row groups are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medseg_gym.cases.files.access.byte_cache import ByteCache
from medseg_gym.cases.files.access.guards import require_file
from medseg_gym.cases.files.defects import Damaged, decoding
from medseg_gym.cases.parquet.arrow import pa, pq

GROUP_BYTES = 48_000_000
"""Row groups up to this size are kept whole; larger ones are streamed."""

_BATCH = 16  # rows at once
_BOMB_BYTES, _BOMB_RATIO = 256_000_000, 200
_MAX_GROUP = 2**40


class RowReader:
    """One open parquet file.

    Args:
        path: The file.
        name: Its path relative to the root, for errors.
        wanted: Top-level columns to read, where the file has them.
        cache: Keeps whole row groups.

    Raises:
        Damaged: It is not a usable parquet file.
    """

    def __init__(self, path: Path, name: str, wanted: tuple[str, ...], cache: ByteCache) -> None:
        require_file(path, name)
        self.name, self._cache = name, cache
        self._lock = threading.Lock()
        self._cursor: tuple[int, int, Iterator[Any], list[dict[str, Any]]] | None = None
        with decoding(name):
            self._file = pq.ParquetFile(path)
            self.schema: pa.Schema = self._file.schema_arrow
            self.groups = self._file.metadata.num_row_groups
            self.columns = [
                column for column in self.schema.names if column.partition(".")[0] in wanted
            ]
            self._sizes = [self._group_bytes(group) for group in range(self.groups)]
            self._counts = [
                self._file.metadata.row_group(group).num_rows for group in range(self.groups)
            ]

    def __len__(self) -> int:
        return sum(self._counts)

    def first_row(self, group: int) -> int:
        """Number of the first row of a row group, counted over the whole file."""
        return sum(self._counts[:group])

    def rows(self, group: int) -> Iterator[dict[str, Any]]:
        """Read the rows of a row group in order.

        Raises:
            Damaged: The row group cannot be read.
        """
        with decoding(self.name, f"row group {group}"):
            for batch in self._stream(group):
                yield from batch

    def row(self, group: int, at: int) -> dict[str, Any]:
        """Read one row; neighbours are cheap afterwards.

        Raises:
            Damaged: It is not there any more, or its row group cannot be read.
        """
        place = f"row group {group}"
        if not (group < self.groups and at < self._counts[group]):
            raise Damaged(self.name, f"row {at} is gone; the file changed", place)
        with decoding(self.name, place):
            if self._sizes[group] <= GROUP_BYTES:
                table = self._cache.get(
                    (self.name, group),
                    lambda: self._file.read_row_group(group, self.columns, use_threads=False),
                    lambda table: int(table.nbytes),
                )
                row: dict[str, Any] = table.slice(at, 1).to_pylist()[0]
                return row
            with self._lock:
                return self._seek(group, at)

    def _seek(self, group: int, at: int) -> dict[str, Any]:
        if self._cursor is None or self._cursor[0] != group or self._cursor[1] > at:
            stream = self._stream(group)
            self._cursor = (group, 0, stream, next(stream))
        _, first, stream, batch = self._cursor
        while at >= first + len(batch):
            first, batch = first + len(batch), next(stream)
            self._cursor = (group, first, stream, batch)
        return batch[at - first]

    def _stream(self, group: int) -> Iterator[list[dict[str, Any]]]:
        for batch in self._file.iter_batches(
            _BATCH, row_groups=[group], columns=self.columns, use_threads=False
        ):
            yield batch.to_pylist()

    def _group_bytes(self, group: int) -> int:
        """Bytes that the wanted columns of a row group take in memory.

        Raises:
            Damaged: They are out of all proportion.
        """
        metadata = self._file.metadata.row_group(group)
        unpacked = packed = 0
        for index in range(metadata.num_columns):
            column = metadata.column(index)
            if column.path_in_schema.partition(".")[0] in self.columns:
                unpacked += column.total_uncompressed_size
                packed += column.total_compressed_size
        if unpacked > _MAX_GROUP or unpacked > max(_BOMB_BYTES, _BOMB_RATIO * packed):
            raise Damaged(
                self.name,
                f"announces {unpacked} bytes out of {packed}; it is not unpacked",
                f"row group {group}",
            )
        return unpacked
