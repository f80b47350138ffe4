"""Bytes that sessions hold, counted against each owner's share of the budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from medseg_gym.cases import Case
from medseg_gym.serving.sessions.quotas import Quota, Tenant
from medseg_gym.serving.sessions.session import Session


class SessionMemory:
    """Bytes of all sessions: images, masks, embeddings, and the logits of every step.

    Args:
        total: Budget in bytes.
        tenants: Tenants with a share of their own, see `Quota`.
        logits_size: (height, width) of the logits that a step keeps.
    """

    def __init__(self, total: int, tenants: Sequence[Tenant], logits_size: tuple[int, int]) -> None:
        self._quota = Quota(total, tenants)
        self._logits_bytes = 4 * logits_size[0] * logits_size[1]
        self._images: Counter[tuple[Tenant, str]] = Counter()  # sessions per distinct image

    @property
    def total(self) -> int:
        """Budget in bytes."""
        return self._quota.total

    @property
    def used(self) -> int:
        """Bytes held by all sessions."""
        return self._quota.used

    def room(self, tenant: Tenant) -> int:
        """Return how many more bytes a tenant may hold now; may be negative."""
        return self._quota.room(tenant)

    @staticmethod
    def bytes_to_open(case: Case) -> int:
        """Return how many bytes a session needs before its first step."""
        return case.image.nbytes + 2 * case.mask.nbytes

    def step_bytes(self, session: Session) -> int:
        """Return how many bytes a step adds to a session."""
        return session.case.mask.nbytes + self._logits_bytes

    def open(self, session: Session) -> None:
        """Count a session that begins."""
        held = self._fixed_bytes(session) + self._embedding_bytes(session, +1)
        self._quota.add(session.tenant, held)

    def count_steps(self, session: Session) -> None:
        """Count the steps of a session that were taken, or undone, since the last call."""
        now = len(session.episode.steps) * self.step_bytes(session)
        self._quota.add(session.tenant, now - session.step_bytes)
        session.step_bytes = now

    def close(self, session: Session) -> None:
        """Release what a session held."""
        held = self._fixed_bytes(session) + self._embedding_bytes(session, -1) + session.step_bytes
        self._quota.add(session.tenant, -held)

    def _fixed_bytes(self, session: Session) -> int:
        # The case's mask, the truth on the device and the empty start mask have a byte a pixel.
        return session.case.image.nbytes + 3 * session.case.mask.nbytes

    def _embedding_bytes(self, session: Session, change: int) -> int:
        """Bytes of an embedding: once a tenant, with the first and last session on its image."""
        key = session.tenant, session.case.content_hash
        first_or_last = self._images[key] == (0 if change > 0 else 1)
        self._images[key] += change
        if not self._images[key]:
            del self._images[key]
        embedding = session.episode.embedding
        return embedding.nbytes if first_or_last and embedding is not None else 0
