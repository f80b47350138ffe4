"""A refusal that says with which HTTP status, and when to come back."""

from __future__ import annotations

from medseg_gym.errors import MedSegError


class ServiceError(MedSegError):
    """A request that the service does not carry out.

    Args:
        message: What, where, and the way out.
        status: HTTP status.
        retry_after: Seconds after which it may work; None where trying again is of no use.
    """

    def __init__(self, message: str, status: int = 422, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
