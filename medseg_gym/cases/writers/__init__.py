"""Write cases to disk, in a format that this suite and other tools read back.

A `CaseWriter` writes one split in one format (`biomedparse`, `parquet`); `convert_cases` feeds one
from any case source and goes on where a killed run stopped.
"""

from medseg_gym.cases.writers.case_writer import CaseWriter
from medseg_gym.cases.writers.convert import WRITERS, convert_cases

__all__ = ["WRITERS", "CaseWriter", "convert_cases"]
