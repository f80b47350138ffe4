"""The error for requests that are refused: HTTP status, and when to try again."""

from __future__ import annotations

from medseg_gym.errors import MedSegError


class ServiceError(MedSegError):
    """A request that the service does not carry out.

    Args:
        message: The thing, the place and the way out.
        status: HTTP status.
        retry_after: Seconds after which the request may succeed; None if it never will.
    """

    def __init__(self, message: str, status: int = 422, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
