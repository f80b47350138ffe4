"""MedSAM-Agent's reinforcement-learning parquet: a row a case, images as PNG bytes."""

from medseg_gym.cases.files.dataset_formats import FormatLoader
from medseg_gym.cases.parquet.dataset_format import ParquetFormat

__all__ = ["ParquetFormat", "load"]

load = FormatLoader(ParquetFormat)
