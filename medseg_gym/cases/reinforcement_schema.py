"""Columns of MedSAM-Agent's reinforcement-learning parquet, which verl reads too."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def reinforcement_schema(extra_info: list[tuple[str, pa.DataType]]) -> pa.Schema:
    """Return the schema of a file.

    Args:
        extra_info: Name and type of the fields of its last column.
    """
    import pyarrow as pa  # late: who calls has said what to install where it is missing

    png = pa.struct([("bytes", pa.binary())])
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    return pa.schema(
        [
            ("data_source", pa.string()),
            ("prompt", pa.list_(message)),
            ("images", pa.list_(png)),
            ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", png)])),
            ("extra_info", pa.struct(extra_info)),
        ]
    )
