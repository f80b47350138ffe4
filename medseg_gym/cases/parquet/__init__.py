"""MedSAM-Agent's reinforcement-learning parquet: a row a case, pictures as PNG bytes."""

from medseg_gym.cases.files import FileCaseSource, open_split
from medseg_gym.cases.parquet.layout import ParquetFormat
from medseg_gym.cases.parquet.writer import ParquetWriter

__all__ = ["ParquetFormat", "ParquetWriter", "load"]


def load(argument: str, split: str) -> FileCaseSource:
    """Open a split for `load_cases("parquet:ARGUMENT", split)`.

    Args:
        argument: Path of a file or of a folder of files, and options: see `ParquetFormat`.
        split: "train", "val" or "test".

    Raises:
        CaseError: The data cannot be used.
    """
    return open_split(ParquetFormat, argument, split)
