"""Write the reinforcement-learning parquet, so that reading it back gives equal cases."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from medseg_gym.cases.case import Case
from medseg_gym.cases.image_files.images import png_bytes
from medseg_gym.cases.parquet.arrow import pa, pq
from medseg_gym.cases.reinforcement_schema import reinforcement_schema
from medseg_gym.cases.writers.case_writer import (
    CaseWriter,
    case_fields,
    replace_file,
    require_words,
)

ROWS = 128
"""Rows of a file: what a kill can cost."""

_GROUP = 32  # rows of a row group: what reading one case reads
SCHEMA = reinforcement_schema(
    [
        ("target_description", pa.string()),
        ("split", pa.string()),
        ("key", pa.string()),
        ("modality", pa.string()),
        ("spacing", pa.list_(pa.float64())),
        ("group", pa.string()),
        ("source", pa.string()),
        ("synthetic", pa.bool_()),
    ]
)


class ParquetWriter(CaseWriter):
    """Writer of `<split>-00000-of-00002.parquet` and so on, 128 rows a file.

    The columns are those of MedSAM-Agent's reinforcement learning; `extra_info` also holds the
    fields of a `Case` that those have no place for.
    """

    def resume(self) -> int:
        """Return how many cases of the split lie in whole files.

        Raises:
            CaseError: The folder holds something else.
        """
        self._waiting: list[dict[str, Any]] = []
        self._done = 0
        names = {self._path(number) for number in range(self._parts)}
        for other in sorted(self.out.glob(f"{self.split}-*.parquet")):
            if other not in names or not self._is_ours(other):
                raise self.foreign(other)
        for number in range(self._parts):
            if not self._path(number).exists():
                break
            self._done = min((number + 1) * ROWS, self.total)
        return self._done

    def write(self, case: Case) -> None:
        """Keep the next case for its file, and write the file when it is full.

        Raises:
            CaseError: It has no target text, or the disk refuses.
        """
        require_words(case)
        self._waiting.append(
            {
                "data_source": case.source,
                "prompt": [{"role": "user", "content": f"<image>Segment: {case.target}."}],
                "images": [{"bytes": png_bytes(case.image)}],
                "reward_model": {"style": "rule", "ground_truth": {"bytes": png_bytes(case.mask)}},
                "extra_info": {
                    "target_description": case.target,
                    "split": self.split,
                    **case_fields(case),
                },
            }
        )
        if len(self._waiting) == ROWS:
            self._flush()

    def finish(self) -> None:
        """Write the last, shorter file."""
        if self._waiting:
            self._flush()

    @property
    def _parts(self) -> int:
        return -(-self.total // ROWS)

    def _path(self, number: int) -> Path:
        return self.out / f"{self.split}-{number:05d}-of-{self._parts:05d}.parquet"

    def _flush(self) -> None:
        schema = SCHEMA.with_metadata({"medseg_gym": json.dumps(self.identity)})
        buffer = io.BytesIO()
        table = pa.Table.from_pylist(self._waiting, schema=schema)
        pq.write_table(table, buffer, row_group_size=_GROUP, compression="zstd")
        replace_file(self._path(self._done // ROWS), buffer.getvalue())
        self._done += len(self._waiting)
        self._waiting = []

    def _is_ours(self, path: Path) -> bool:
        try:
            metadata = pq.read_schema(path).metadata or {}
        except (OSError, pa.ArrowException):
            return False
        return metadata.get(b"medseg_gym") == json.dumps(self.identity).encode()
