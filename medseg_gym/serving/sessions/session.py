"""One session: a named `Episode` of the segmenter's engine.

It keeps no masks, prompts or logits of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone

from medseg_gym.cases import Case
from medseg_gym.episodes import Episode
from medseg_gym.prompts import AddBox, AddPoint
from medseg_gym.serving.sessions.quotas import Tenant


@dataclass(eq=False)
class Session:
    """One client's episode.

    Args:
        id: Unguessable, or chosen by its owner; unique among the owner's sessions.
        owner: The only one who sees it.
        case: The uploaded image; its mask is empty, for the service knows no truth.
        slot: Its place in the segmenter's engine.
        episode: Its prompts, masks and logits.
        rounds: Requests that made a mask.
        created: `time.monotonic()` at its begin.
        used: `time.monotonic()` at the last request.
        lock: Requests on one session take turns.
        on_close: Called once when it ends, whatever the reason. A session with one is a game of the
            page; session routes do not see it, for what they did would not be recorded.
    """

    id: str
    owner: str
    case: Case
    slot: int
    episode: Episode
    rounds: int = 0
    created: float = field(default_factory=time.monotonic)
    used: float = field(default_factory=time.monotonic)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    on_close: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self._born = datetime.now(timezone.utc)
        self.closed = False
        self.step_bytes = 0  # bytes of its steps that `SessionMemory` has counted

    @property
    def tenant(self) -> Tenant:
        """Tenant whose share of the service it uses."""
        return Tenant(self.owner, self.on_close is not None)

    @property
    def image_size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.case.width, self.case.height

    @property
    def times(self) -> tuple[str, str]:
        """Times of creation and of last use, ISO 8601."""
        last = self._born.timestamp() + self.used - self.created
        return self._born.isoformat(), datetime.fromtimestamp(last, timezone.utc).isoformat()


def describe_prompts(episode: Episode) -> list[list[int] | str]:
    """List prompts as MedSAM-Agent's server does: [x, y, label] or "bbox:[...]", in pixels."""
    history: list[list[int] | str] = []
    width, height = episode.case.width, episode.case.height
    for prompt in (step.prompt for step in episode.steps if step.valid):
        if isinstance(prompt, AddBox):
            xs, ys = (prompt.x1, prompt.x2), (prompt.y1, prompt.y2)
            (x1, x2), (y1, y2) = (
                [round(value * side - 0.5) for value in values]
                for values, side in ((xs, width), (ys, height))
            )
            history.append(f"bbox:[{x1},{y1},{x2},{y2}]")
        elif isinstance(prompt, AddPoint):
            x, y = round(prompt.x * width - 0.5), round(prompt.y * height - 0.5)
            history.append([x, y, int(prompt.positive)])
    return history
