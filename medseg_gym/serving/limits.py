"""Limits of the service: everything that it accepts and holds is bounded."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from medseg_gym.errors import MedSegError
from medseg_gym.options import Options


@dataclass(frozen=True, kw_only=True)
class Limits(Options):
    """Limits of the service, each with the answer to requests that exceed it.

    Raises:
        MedSegError: A limit is not positive (`max_delay_ms` may be 0).
    """

    topic: ClassVar[str] = "Service"

    max_batch: int = 64
    """Most prompt rows in one decoder call of the micro-batcher."""

    max_delay_ms: float = 2.0
    """Longest that a request waits for others to share its decoder call, in milliseconds. Waiting
    only happens while the segmenter is idle.
    """

    queue_rows: int = 1024
    """Most rows and images that wait for the segmenter; beyond it 503."""

    max_rows: int = 256
    """Most rows, and most images, in one request; beyond it 422."""

    max_points: int = 8192
    """Most prompt points of one request's rows together, each row counted as long as the longest,
    for the decoder fills them up; beyond it 422.
    """

    max_connections: int = 2048
    """Most connections; further ones are closed."""

    max_header_bytes: int = 32 << 10
    """Most bytes of a request's line and header, or of its trailers; beyond it 431 and the
    connection is closed.
    """

    max_upload_bytes: int = 64 << 20
    """Most bytes in one request's body; beyond it 413."""

    max_form_bytes: int = 64 << 10
    """Most bytes of a body that carries no file and no rows: forms without files and what the page
    sends; beyond it 413.
    """

    max_pixels: int = 4096 * 4096
    """Most pixels of one image; beyond it 422."""

    max_request_pixels: int = 2 * 4096 * 4096
    """Most pixels of all images in one request; beyond it 422."""

    max_pixels_in_flight: int = 8 * 4096 * 4096
    """Most pixels of images, and values of logits, that requests in progress hold together; beyond
    it 503. A request is never refused for its own alone.
    """

    max_requests: int = 1024
    """Most requests in progress; beyond it 503."""

    max_bytes_in_flight: int = 512 << 20
    """Most bytes of bodies in progress, all requests together; beyond it 503."""

    body_seconds: float = 30.0
    """Longest that a request's header, and then its body, may take to arrive; beyond it the
    connection is closed, after 408 where the header was complete.
    """

    send_seconds: float = 30.0
    """Longest that a client may keep an answer waiting; then it is cut off."""

    max_sessions: int = 1024
    """Most sessions and games alive; beyond it 503. Half of them are shared out: every owner's
    programs, and every owner's games on the page, can always have their part.
    """

    max_sessions_per_client: int = 512
    """Most sessions alive of one owner's programs; beyond it 429."""

    max_games_per_client: int = 64
    """Most games alive of one owner; a further one ends the game that was idle for the longest,
    whose steps stay recorded.
    """

    session_idle_seconds: float = 1800.0
    """A session that was not used for so long is closed."""

    session_unused_seconds: float = 300.0
    """One that never got a prompt is closed after so long already: its client is most likely gone.
    """

    session_life_seconds: float = 86400.0
    """A session is closed at this age, however busy."""

    max_steps: int = 100
    """Prompts in one session; beyond it 409."""

    session_bytes: int = 2 << 30
    """Budget of all sessions together (images, embeddings, masks and logits of every step, which
    undo needs), half of it shared out likewise; beyond it 503.
    """

    drain_seconds: float = 30.0
    """Longest that a shutdown waits for requests that were accepted."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            lowest = 0 if field.name == "max_delay_ms" else 1e-6
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < lowest:
                raise MedSegError(
                    f"the service's limit {field.name} must be positive, got {value!r}"
                )
