"""Options of commands that share their cases out to workers; nothing here imports torch or Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from medseg_gym.errors import MedSegError
from medseg_gym.options import Options


@dataclass(frozen=True, kw_only=True)
class WorkerOptions(Options):
    """Workers that the cases are shared out to; they change nothing in the results."""

    topic: ClassVar[str] = "Workers"

    workers: int | None = None
    """Processes, or actors with --ray; left out is 1, with --ray as many as the cluster has room
    for.
    """

    threads: int = 1
    """torch threads of each worker; the last bits of results depend on it."""

    ray: str | None = None
    """Share the cases over a Ray cluster: its address, auto (the one that this machine is part of)
    or local (one that is started here); without a value RAY_ADDRESS, else local.
    """

    cpus_per_actor: float | None = None
    """With --ray; left out is the number of threads."""

    gpus_per_actor: float | None = None
    """With --ray; left out is 1 where the cluster has GPUs and --device is not cpu, else 0."""

    @property
    def alone(self) -> bool:
        """True where the program plays by itself."""
        return self.ray is None and self.workers in (None, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("workers", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise MedSegError(f"{name} must be at least 1, got {value}")
        for name in ("cpus_per_actor", "gpus_per_actor"):
            value = getattr(self, name)
            if value is not None and self.ray is None:
                raise MedSegError(f"{name} is for actors on a Ray cluster; give --ray too")
            if value is not None and not 0 <= value < float("inf"):
                raise MedSegError(f"{name} must be a number of 0 or more, got {value}")
        if self.ray is not None and not self.ray.strip():
            raise MedSegError("ray must be an address, auto or local, got nothing")
