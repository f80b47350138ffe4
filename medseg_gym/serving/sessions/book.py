"""All sessions: which owner has which episode, how long it lives, and what it may hold.

The book is used by the event loop alone, so it needs no locks.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from medseg_gym.cases import Case
from medseg_gym.episodes import DecodeOptions, StepResult
from medseg_gym.prompts import AddBox, AddPoint, Clear, Prompt
from medseg_gym.serving.batching.segmenter import Segmenter
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.middleware.api_keys import LOOPBACK
from medseg_gym.serving.sessions.memory import SessionMemory
from medseg_gym.serving.sessions.quotas import Quota, Tenant
from medseg_gym.serving.sessions.session import Session

CHOSEN_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")


class Progress(NamedTuple):
    """Requests that made a mask so far, boxes and clicks so far, and the mask, (H, W) bool."""

    rounds: int
    clicks: int
    mask: torch.Tensor


class SessionBook:
    """All sessions of all owners.

    Args:
        segmenter: Runs their episodes.
        owners: Names of all owners.
        games: Whether owners may also play games.
    """

    def __init__(
        self, segmenter: Segmenter, owners: Sequence[str] = (LOOPBACK,), games: bool = False
    ) -> None:
        self.segmenter = segmenter
        self.limits = segmenter.limits
        self.metrics = segmenter.metrics
        self._sessions: dict[tuple[str, str], Session] = {}
        self._reserved: set[tuple[str, str]] = set()
        tenants = [Tenant(owner, game) for owner in owners for game in (False, True)[: 1 + games]]
        self._slots = Quota(self.limits.max_sessions, tenants)
        self._memory = SessionMemory(
            self.limits.session_bytes, tenants, segmenter.facts.logits_size
        )
        self.metrics.sessions.set_function(lambda: len(self._sessions))
        self.metrics.session_bytes.set_function(lambda: self._memory.used)

    def __len__(self) -> int:
        return len(self._sessions)

    # open and close ----------------------------------------------------------------------------
    async def open(
        self,
        owner: str,
        case: Case,
        chosen: str | None = None,
        max_steps: int | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> Session:
        """Begin a session on an image.

        Args:
            owner: The only one who sees it.
            case: The image.
            chosen: An id that the client chose; free among the owner's own. Sessions of different
                owners may have the same id.
            max_steps: Of its episode; None takes the limit.
            on_close: See `Session`.

        Raises:
            ServiceError: A limit is reached, or the id is in use or not an id.
        """
        session_id = self._choose_id(owner, chosen)
        key = (owner, session_id)
        tenant = Tenant(owner, on_close is not None)
        self._make_room(tenant, case)
        self._slots.add(tenant, 1)
        self._reserved.add(key)
        try:
            slot, episode = await self.segmenter.start(case, max_steps)
        except BaseException:
            self._slots.add(tenant, -1)
            raise
        finally:
            self._reserved.discard(key)
        session = Session(session_id, owner, case, slot, episode, on_close=on_close)
        self._sessions[key] = session
        self._memory.open(session)
        return session

    def _choose_id(self, owner: str, chosen: str | None) -> str:
        if chosen is None:
            return secrets.token_urlsafe(32)
        if not CHOSEN_ID.fullmatch(chosen):
            raise ServiceError(
                "session_id must be 1 to 128 letters, digits, '.', '_', ':' or '-'; "
                "leave it out to be given one"
            )
        if (owner, chosen) in self._sessions or (owner, chosen) in self._reserved:
            raise ServiceError(
                f"you have a session {chosen!r} already; delete it first, choose another id, or "
                "leave session_id out to be given one",
                409,
            )
        return chosen

    def _make_room(self, tenant: Tenant, case: Case) -> None:
        self.close_expired()
        limits = self.limits
        limit = limits.max_games_per_client if tenant.games else limits.max_sessions_per_client
        if tenant.games and self._slots.held[tenant] >= limit:
            self._close_idlest_game(tenant)
        if (mine := self._slots.held[tenant]) >= limit:
            self.metrics.refused.labels("sessions_per_client").inc()
            raise ServiceError(
                f"you have {mine} sessions open, and {limit} is the limit; delete those that are "
                "done",
                429,
                retry_after=self._next_expiry(),
            )
        if self._slots.room(tenant) < 1:
            self.metrics.refused.labels("sessions").inc()
            raise ServiceError(
                f"{self._slots.used} of {limits.max_sessions} sessions are open, and the others' "
                "share is kept free; try again later",
                503,
                retry_after=self._next_expiry(),
            )
        self._require_bytes(tenant, SessionMemory.bytes_to_open(case))

    def _close_idlest_game(self, tenant: Tenant) -> None:
        """Make room for a new game; a tab that was closed leaves its game behind."""
        games = [
            session
            for session in self._sessions.values()
            if session.tenant == tenant and not session.lock.locked()
        ]
        if games:
            self.close(min(games, key=lambda session: session.used), "replaced")

    def get(self, owner: str, session_id: str, game: bool = False) -> Session:
        """Return the owner's session of that id.

        Args:
            owner: The one who asks.
            session_id: Id of the session.
            game: Look for a game instead.

        Raises:
            ServiceError: 404; whether another owner has one of that name does not show.
        """
        session = self._sessions.get((owner, session_id))
        if session is not None and self._expired(session):
            self.close(session, "expired")
            session = None
        if session is None or (session.on_close is not None) != game:
            raise ServiceError("Session not found: it never was, was deleted, or expired", 404)
        session.used = time.monotonic()
        return session

    def of(self, owner: str) -> list[Session]:
        """Return the owner's sessions, oldest first, without games."""
        self.close_expired()
        return [s for s in self._sessions.values() if s.owner == owner and s.on_close is None]

    def close(self, session: Session, reason: str = "deleted") -> None:
        """Drop a session and free its memory; a second call does nothing."""
        if session.closed:
            return
        session.closed = True
        del self._sessions[session.owner, session.id]
        self._memory.close(session)
        self._slots.add(session.tenant, -1)
        self.metrics.sessions_closed.labels(reason).inc()
        self.segmenter.end(session.slot)
        if session.on_close is not None:
            session.on_close()

    def close_expired(self) -> None:
        """Close sessions that were idle or alive for too long; those in use are left alone."""
        for session in [s for s in self._sessions.values() if self._expired(s)]:
            self.close(session, "expired")

    def _expired(self, session: Session) -> bool:
        now = time.monotonic()
        return not session.lock.locked() and (
            now - session.used > self._idle_seconds(session)
            or now - session.created > self.limits.session_life_seconds
        )

    def _idle_seconds(self, session: Session) -> float:
        """Seconds that a session may be idle; people may look at an image before they begin."""
        idle = self.limits.session_idle_seconds
        if session.tenant.games or session.episode.steps:
            return idle
        return min(idle, self.limits.session_unused_seconds)

    def _next_expiry(self) -> float:
        """Seconds until the first session may expire, at least 1 and at most 60."""
        now = time.monotonic()
        left = [self._idle_seconds(s) - (now - s.used) for s in self._sessions.values()]
        return min(max(min(left, default=1.0), 1.0), 60.0)

    # act ---------------------------------------------------------------------------------------
    async def act(
        self,
        session: Session,
        prompts: Sequence[Prompt],
        options: DecodeOptions | None = None,
        fresh: bool = False,
    ) -> Progress:
        """Give a session prompts in order, each a step of its episode.

        Args:
            session: Its requests take turns.
            prompts: At least one box or click.
            options: Of these steps; None for the service's own.
            fresh: Begin with `Clear` if the session has prompts.

        Returns:
            State after this request, even if the next one is under way.

        Raises:
            ServiceError: The steps are used up, the memory is, or a prompt is invalid.
        """
        self._check_kinds(prompts)
        async with session.lock:
            if session.closed:
                raise ServiceError("Session not found: it was deleted meanwhile", 404)
            episode = session.episode
            state = episode.state
            if fresh and (state.box is not None or state.points):
                prompts = [Clear(), *prompts]
            if len(prompts) > episode.steps_left:
                raise ServiceError(
                    f"{len(prompts)} prompts are more than the {episode.steps_left} that are left "
                    f"of this session's {episode.max_steps}; begin a new one",
                    409,
                )
            self._require_bytes(session.tenant, len(prompts) * self._memory.step_bytes(session))
            for prompt in prompts:
                await self._take_step(session, prompt, options)
                if episode.steps[-1].error:
                    raise ServiceError(episode.steps[-1].error)
            session.rounds += 1
            session.used = time.monotonic()
            clicks = sum(s.effect == "decode" for s in episode.steps)
            return Progress(session.rounds, clicks, episode.state.mask)

    async def step(self, session: Session, prompt: Prompt) -> StepResult:
        """Take one action of a game, valid or not; the caller holds the lock.

        Raises:
            ServiceError: The game is over or gone, or the memory is used up.
        """
        self._check_kinds([prompt])
        if session.closed:
            raise ServiceError("Session not found: it was deleted meanwhile", 404)
        if session.episode.done:
            raise ServiceError("this game is over; begin a new one", 409)
        self._require_bytes(session.tenant, self._memory.step_bytes(session))
        return await self._take_step(session, prompt, None)

    async def _take_step(
        self, session: Session, prompt: Prompt, options: DecodeOptions | None
    ) -> StepResult:
        try:
            return await self.segmenter.step(session.slot, prompt, options)
        finally:
            if not session.closed:
                self._memory.count_steps(session)

    def _check_kinds(self, prompts: Sequence[Prompt]) -> None:
        facts = self.segmenter.facts
        for prompt in prompts:
            kind = {AddBox: "box", AddPoint: "point"}.get(type(prompt))
            if kind is not None and kind not in facts.prompt_kinds:
                raise ServiceError(f"{facts.name} takes no {kind}")

    # memory ------------------------------------------------------------------------------------
    def _require_bytes(self, tenant: Tenant, wanted: int) -> None:
        if self._memory.room(tenant) < wanted:
            self.close_expired()
        if self._memory.room(tenant) < wanted:
            self.metrics.refused.labels("session_bytes").inc()
            used, total = self._memory.used, self._memory.total
            raise ServiceError(
                f"sessions hold {used >> 20} of {total >> 20} MiB, without what is kept for "
                "others; delete those that are done, or try again later",
                503,
                retry_after=self._next_expiry(),
            )
