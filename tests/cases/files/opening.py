"""Data sets opened as the tests of formats need them: indexed, and every pixel read."""

from __future__ import annotations

from pathlib import Path

from medseg_gym.cases.files import DatasetFormat, FileData, index_dataset


def open_dataset(format_class: type[DatasetFormat], root: Path, options: str = "") -> FileData:
    """Index a data set and examine all its cases."""
    data = index_dataset(format_class, f"{root}?{options}" if options else str(root))
    data.examine()
    return data


def open_healthy(format_class: type[DatasetFormat], root: Path, options: str = "") -> FileData:
    """The same of a data set that has no defect."""
    data = open_dataset(format_class, root, options)
    assert not data.bad, [str(defect) for defect in data.defects]
    return data
