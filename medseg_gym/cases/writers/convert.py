"""Convert cases from one format to another, going on where a killed run stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medseg_gym.cases.case_source import load_splits
from medseg_gym.cases.initial.providers import take_option
from medseg_gym.cases.writers.case_writer import CaseWriter, identity_of
from medseg_gym.errors import CaseError
from medseg_gym.object_paths import load_object

WRITERS = {
    "biomedparse": "medseg_gym.cases.writers.biomedparse:BiomedParseWriter",
    "parquet": "medseg_gym.cases.writers.parquet:ParquetWriter",
    "coco": "medseg_gym.cases.writers.coco:CocoWriter",
    "yolo": "medseg_gym.cases.writers.yolo:YoloWriter",
    "labelme": "medseg_gym.cases.writers.labelme:LabelMeWriter",
    "cvat": "medseg_gym.cases.writers.cvat:CvatWriter",
    "ome": "medseg_gym.cases.writers.ome:OmeWriter",
}


def convert_cases(
    spec: str,
    to: str,
    out: Path,
    limit: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, int]:
    """Write every case of every split in another format.

    Args:
        spec: Case spec of what is read.
        to: Format to write, one of `WRITERS`.
        out: Folder; the same call goes on there after a kill.
        limit: Most cases of a split.
        progress: Called with (split, done, total), at once and after every case.

    Returns:
        Cases by split.

    Raises:
        CaseError: Unknown format, a case that cannot be read or written, or a folder that holds
            something else.
    """
    if to not in WRITERS:
        raise CaseError(f"cannot write {to!r}; use one of {', '.join(WRITERS)}")
    if limit is not None and limit < 1:
        raise CaseError(f"limit must be at least 1, got {limit}")
    if out.exists() and not out.is_dir():
        raise CaseError(f"{out} is a file; give a folder")
    if take_option(spec)[1] is not None:
        raise CaseError(f"{spec}: masks to begin with are not written; leave initial_mask= out")
    writer_class: type[CaseWriter] = load_object(WRITERS[to], "writer", CaseError)
    sources = load_splits(spec)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CaseError(f"{out} cannot be made: {error.strerror}") from error
    written: dict[str, int] = {}
    for split, source in sources.items():
        total = len(source) if limit is None else min(limit, len(source))
        identity = identity_of(spec, split, source.keys[:total])
        writer = writer_class(out, split, identity, total)
        done = writer.resume()
        if progress is not None:
            progress(split, done, total)
        for index in range(done, total):
            writer.write(source[index])
            if progress is not None:
                progress(split, index + 1, total)
        writer.finish()
        writer.sweep()
        written[split] = total
    return written
