"""pyarrow, or how to get it."""

from medseg_gym.trajectories.errors import TrajectoryError

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise TrajectoryError(
        'trajectory stores need pyarrow: pip install "medseg-gym[trajectories]" '
        f"(import failed: {error})"
    ) from error

__all__ = ["pa", "pq"]
