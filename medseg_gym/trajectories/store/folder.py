"""Layout of a store's folder.

    STORE/format.json                    what this is, and the version of the format
    STORE/manifest.jsonl                 a line for every chunk: its name, counts and checksum
    STORE/WRITER-000000.CRC32.parquet    chunks: finished work, one row a step
    STORE/WRITER-000001.journal          what the writer has recorded since its last chunk
    STORE/WRITER.lock                    held by the writer while it lives
    STORE/WRITER-000001.journal.damaged  a journal that was damaged, set aside

Every writer has a name of its own, so writers share nothing but the folder and the manifest. A file
whose name ends in ".part" is being made and counts for nothing until it is renamed.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from pathlib import Path
from typing import Any

from medseg_gym.storage.atomic_write import atomic_write, locked, named_failures
from medseg_gym.storage.line_files import append_rows, read_rows
from medseg_gym.trajectories.errors import TrajectoryError
from medseg_gym.trajectories.store.arrow import pa, pq
from medseg_gym.trajectories.store.rows import FORMAT, FORMAT_VERSION, SCHEMA, check_version

FORMAT_FILE, MANIFEST = "format.json", "manifest.jsonl"
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
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrajectoryError(
            f"{path} is not a trajectory store: it has no {FORMAT_FILE}"
        ) from None
    except (OSError, ValueError) as error:
        raise TrajectoryError(f"{file} cannot be read: {error}") from None
    check_version(file, content if isinstance(content, dict) else {})


def make_folder(path: Path) -> None:
    """Make a store of a new or empty folder; an existing store is checked.

    Raises:
        TrajectoryError: There is something else.
    """
    with named_failures(path / FORMAT_FILE, TrajectoryError):
        path.mkdir(parents=True, exist_ok=True)
        if not (path / FORMAT_FILE).exists():
            if any(not name.endswith(".part") for name in os.listdir(path)):
                if not (path / FORMAT_FILE).exists():  # not made by another writer just now
                    raise TrajectoryError(
                        f"{path} holds other files; give a new or an empty folder for a store"
                    )
            text = json.dumps({"format": FORMAT, "version": FORMAT_VERSION}) + "\n"
            try:
                atomic_write(path / FORMAT_FILE, text, TrajectoryError, durable=False)
            except TrajectoryError:
                if not (path / FORMAT_FILE).exists():  # else another writer swept ours away
                    raise
    open_folder(path)


def chunk_paths(path: Path) -> list[Path]:
    """Chunks, sorted by name."""
    return sorted(path.glob("*.parquet"))


def journal_paths(path: Path) -> list[Path]:
    """Journals, sorted by name."""
    return sorted(path.glob("*.journal"))


def damaged_paths(path: Path) -> list[Path]:
    """Journals that were damaged and set aside, sorted by name."""
    return sorted(path.glob("*.journal.damaged*"))


def part_paths(path: Path, beginning: str) -> list[Path]:
    """Files that are being made, or never were, whose names begin so."""
    return [*path.glob(f"{beginning}*.part"), *path.glob(f".{beginning}*.part")]


def lock_path(path: Path, writer: str) -> Path:
    """The file that a writer of that name holds locked while it lives."""
    return path / f"{writer}.lock"


def write_chunk(path: Path, stem: str, table: pa.Table) -> None:
    """Write a chunk, and its line of the manifest.

    Args:
        path: Folder of the store.
        stem: What the chunk's name begins with: that of the journal which it was.
        table: Its rows.

    Raises:
        TrajectoryError: It cannot be written.
    """
    sink = pa.BufferOutputStream()
    # A mask that a step left alone, and the truth, are stored once: a dictionary finds them.
    pq.write_table(table, sink, compression="zstd", dictionary_pagesize_limit=1 << 26)
    data = sink.getvalue()
    checksum = f"{zlib.crc32(data):08x}"
    file = path / f"{stem}.{checksum}.parquet"
    atomic_write(file, memoryview(data), TrajectoryError)
    line = {
        "chunk": file.name,
        "episodes": len(set(table["id"].to_pylist())),
        "steps": table.num_rows,
        "bytes": data.size,
        "crc32": checksum,
    }
    with locked(path / MANIFEST, TrajectoryError):
        append_rows(path / MANIFEST, [line], TrajectoryError, durable=True)


def read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """Lines of the manifest by the chunk they are of; stores of 0.1.0 have none.

    Raises:
        TrajectoryError: It is damaged.
    """
    way_out = "remove that line to go on without what it says"
    lines = read_rows(path / MANIFEST, TrajectoryError, way_out)
    try:
        return {str(line["chunk"]): line for line in lines}
    except KeyError:
        raise TrajectoryError(f"{path / MANIFEST}: a line names no chunk; {way_out}") from None


def check_manifest(path: Path, chunks: dict[str, tuple[int, int]]) -> None:
    """Compare the chunks that are there with those that were written.

    Args:
        path: Folder of the store.
        chunks: Episodes and steps of the chunks that were read, by their names.

    Raises:
        TrajectoryError: A chunk is missing, or holds another number of episodes or steps.
    """
    missing, lost = [], 0
    for name, line in read_manifest(path).items():
        counts = line.get("episodes"), line.get("steps")
        if name in chunks:
            if chunks[name] != counts:
                raise TrajectoryError(
                    f"{path / name} holds {chunks[name][0]} episodes and {chunks[name][1]} steps, "
                    f"but {counts[0]} and {counts[1]} were written"
                )
        elif not (path / name).exists():  # else it has come since the folder was read
            missing.append(name)
            lost += int(counts[0] or 0)
    if missing:
        others = f" and {len(missing) - 1} more chunks" if len(missing) > 1 else ""
        raise TrajectoryError(
            f"{path / missing[0]}{others} with {lost} episodes is missing; put it back, or remove "
            f"its line from {path / MANIFEST} to go on without these episodes"
        )


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
            table = file.read(columns)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrajectoryError(
            f"{path} is damaged ({what}); move the file away, and its line out of {MANIFEST}, "
            "to go on without its episodes"
        ) from None
    for name in ("depth", "slice", "initial_mask"):  # absent from older versions
        if name not in table.column_names and (columns is None or name in columns):
            table = table.append_column(
                SCHEMA.field(name), pa.nulls(table.num_rows, SCHEMA.field(name).type)
            )
    return table
