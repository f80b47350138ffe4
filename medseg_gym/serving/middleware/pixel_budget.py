"""Limits on decoded pixels, for each request and for all requests in progress together.

A file of a few kilobytes can announce millions of pixels, so they are counted from its header,
before any is decoded.
"""

from __future__ import annotations

from threading import Lock

from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.limits import Limits
from medseg_gym.serving.metrics import ServiceMetrics


class PixelBudget:
    """Pixels of all requests in progress; safe to use from several threads.

    Args:
        limits: `max_pixels`, `max_request_pixels` and `max_pixels_in_flight`.
        metrics: Count refusals, if given.
    """

    def __init__(self, limits: Limits, metrics: ServiceMetrics | None = None) -> None:
        self.limits = limits
        self.metrics = metrics
        self.held = 0
        self._lock = Lock()

    def allowance(self) -> Allowance:
        """Return the allowance of one request, which ends with `Allowance.release`."""
        return Allowance(self)

    def _take(self, count: int, own: int) -> None:
        with self._lock:
            others = self.held - own
            if others and self.held + count > self.limits.max_pixels_in_flight:
                if self.metrics is not None:
                    self.metrics.refused.labels("pixels_in_flight").inc()
                raise ServiceError(
                    "too many images are being decoded at once; try again shortly",
                    503,
                    retry_after=1,
                )
            self.held += count

    def _give_back(self, count: int) -> None:
        with self._lock:
            self.held -= count


class Allowance:
    """Pixels that one request holds.

    Args:
        budget: Budget of all requests.
    """

    def __init__(self, budget: PixelBudget) -> None:
        self._budget = budget
        self._images = 0  # pixels of its images
        self._held = 0  # and values of logits

    def take(self, height: int, width: int, name: str = "image") -> None:
        """Count an image before it is decoded.

        Args:
            height: Rows, according to the file's header.
            width: Columns, according to the file's header.
            name: Name of the image in errors.

        Raises:
            ServiceError: The image has no pixels, or it, the request or all requests in progress
                would exceed their limit.
        """
        limits, count = self._budget.limits, height * width
        if not 0 < count <= limits.max_pixels or height < 0:
            raise ServiceError(
                f"{name} has {height} x {width} pixels; 1 to {limits.max_pixels} are taken: "
                "scale it down"
            )
        if self._images + count > limits.max_request_pixels:
            raise ServiceError(
                f"the images of this request, up to {name}, have {self._images + count} pixels; "
                f"{limits.max_request_pixels} are taken at once: send several requests"
            )
        self.take_values(count)
        self._images += count

    def take_values(self, count: int) -> None:
        """Count values of the logits that will be answered.

        Raises:
            ServiceError: All requests in progress would exceed their limit.
        """
        self._budget._take(count, self._held)
        self._held += count

    def release(self) -> None:
        """Give everything back; a second call does nothing."""
        self._budget._give_back(self._held)
        self._images = self._held = 0
