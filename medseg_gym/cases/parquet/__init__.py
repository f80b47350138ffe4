"""MedSAM-Agent's reinforcement-learning parquet: a row a case, images as PNG bytes."""

from medseg_gym.cases.files import FileCaseSource, open_split
from medseg_gym.cases.parquet.dataset_format import ParquetFormat

__all__ = ["ParquetFormat", "load"]


def load(argument: str, split: str) -> FileCaseSource:
    """Open a split for `load_cases("parquet:ARGUMENT", split)`.

    Args:
        argument: Path of a file or of a folder of files, and options: see `ParquetFormat`.
        split: "train", "val" or "test".

    Raises:
        CaseError: The data cannot be used.
    """
    return open_split(ParquetFormat, argument, split)
