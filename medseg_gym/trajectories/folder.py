"""What lies where in a store's folder.

    STORE/format.json                    what this is, and the version of the format
    STORE/WRITER-000000.CRC32.parquet    chunks: finished work, one row a step
    STORE/WRITER-000001.journal          what the writer has recorded since its last chunk

Every writer has a name of its own, so writers share nothing but the folder. A file whose name ends
in ".part" is being made and counts for nothing until it is renamed.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from pathlib import Path

from medseg_gym.trajectories.arrow import pa, pq
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.rows import FORMAT, FORMAT_VERSION, check_version

FORMAT_FILE = "format.json"
_CHECKSUM = re.compile(r"\.([0-9a-f]{8})\.parquet$")  # Parquet's own sums leave headers out


def open_folder(path: Path) -> None:
    """Check that a folder is a store this version can read.

    Raises:
        TrajectoryError: It is not.
    """
    file = path / FORMAT_FILE
    if not path.is_dir():
        raise TrajectoryError(f"there is no trajectory store at {path}")
    try:
        found = json.loads(file.read_text())
    except FileNotFoundError:
        raise TrajectoryError(
            f"{path} is not a trajectory store: it has no {FORMAT_FILE}"
        ) from None
    except (OSError, ValueError) as error:
        raise TrajectoryError(f"{file} cannot be read: {error}") from None
    check_version(file, found if isinstance(found, dict) else {})


def make_folder(path: Path) -> None:
    """Make a store of a new or empty folder; an existing store is checked.

    Raises:
        TrajectoryError: There is something else.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not (path / FORMAT_FILE).exists():
            if any(not name.endswith(".part") for name in os.listdir(path)):
                if not (path / FORMAT_FILE).exists():  # not made by another writer just now
                    raise TrajectoryError(
                        f"{path} holds other files; give a new or an empty folder for a store"
                    )
            part = path / f"{FORMAT_FILE}.{os.getpid()}.part"
            part.write_text(json.dumps({"format": FORMAT, "version": FORMAT_VERSION}) + "\n")
            os.replace(part, path / FORMAT_FILE)
    except OSError as error:
        raise TrajectoryError(f"no store can be made at {path}: {error}") from None
    open_folder(path)


def chunk_paths(path: Path) -> list[Path]:
    """Chunks, sorted by name."""
    return sorted(path.glob("*.parquet"))


def journal_paths(path: Path) -> list[Path]:
    """Journals, sorted by name."""
    return sorted(path.glob("*.journal"))


def write_chunk(journal: Path, table: pa.Table, fsync: bool = False) -> None:
    """Write the chunk that a journal becomes: beside its place, then renamed into it."""
    sink = pa.BufferOutputStream()
    # A mask that a step left alone, and the truth, are stored once: a dictionary finds them.
    pq.write_table(table, sink, compression="zstd", dictionary_pagesize_limit=1 << 26)
    data = sink.getvalue()
    path = journal.with_name(f"{journal.stem}.{zlib.crc32(data):08x}.parquet")
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        if fsync:
            file.flush()
            os.fsync(file.fileno())
    os.replace(part, path)


def read_chunk(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a chunk, or some columns of it; the checksum in its name is compared.

    Args:
        path: Of the chunk.
        columns: Names; None reads all.

    Raises:
        TrajectoryError: Damaged, foreign, or of a newer version; it names the file.
    """
    try:
        data = path.read_bytes()
        named = _CHECKSUM.search(path.name)
        if named and zlib.crc32(data) != int(named[1], 16):
            raise OSError("its checksum differs")
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            metadata = file.schema_arrow.metadata or {}
            check_version(path, {k.decode(): v.decode() for k, v in metadata.items()})
            return file.read(columns)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrajectoryError(
            f"{path} is damaged ({what}); move the file away to go on without its episodes"
        ) from None
