"""MedSAM-Agent's reinforcement-learning parquet: a row a case, pictures as PNG bytes."""

from medseg_gym.cases.files.dataset_formats import FormatLoader
from medseg_gym.cases.parquet.layout import ParquetFormat
from medseg_gym.cases.parquet.writer import ParquetWriter

__all__ = ["ParquetFormat", "ParquetWriter", "load"]

load = FormatLoader(ParquetFormat)
