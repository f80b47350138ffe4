"""Import pyarrow, or explain how to install it."""

from medseg_gym.errors import CaseError

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise CaseError(
        f'parquet: needs pyarrow: pip install "medseg-gym[data]" (import failed: {error})'
    ) from error

__all__ = ["pa", "pq"]
