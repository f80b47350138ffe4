"""Formats as kinds of case specs."""

from __future__ import annotations

from typing import Any

from medseg_gym.cases.case_source import CASES
from medseg_gym.cases.files.dataset_format import DatasetFormat
from medseg_gym.cases.files.source import FileCaseSource, open_split
from medseg_gym.cases.files.spec import FileSpec
from medseg_gym.specs import Spec


class FormatLoader:
    """Factory of case sources in one format, for `medseg_gym.cases.register`.

    Args:
        dataset_format: The format; its options may stand in the spec.
    """

    takes_spec = True

    def __init__(self, dataset_format: type[DatasetFormat]) -> None:
        self.dataset_format = dataset_format

    def __call__(self, spec: Spec, split: str) -> FileCaseSource:
        """Open a split for `load_cases("KIND:PATH?option=value", split)`.

        Raises:
            CaseError: The data or an option cannot be used.
        """
        return open_split(self.dataset_format, spec.rest, split)


def dataset_format_of(spec: str) -> type[DatasetFormat] | None:
    """Return the format of a case spec, or of its kind alone; None if it is not about files.

    Raises:
        CaseError: Unknown kind.
    """
    factory: Any = CASES.find(spec)
    return factory.dataset_format if isinstance(factory, FormatLoader) else None


def read_file_spec(spec: str) -> tuple[type[DatasetFormat], FileSpec] | None:
    """Return format, path and options of a case spec; None if it is not about files.

    Raises:
        CaseError: Unknown kind, no path, or an option that the format does not have.
    """
    dataset_format = dataset_format_of(spec)
    if dataset_format is None:
        return None
    rest = CASES.parse(spec).rest
    return dataset_format, FileSpec.parse(dataset_format.name, rest, dataset_format.options)
