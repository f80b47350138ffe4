"""Recorded episodes on volumes while people look at them, the last ones asked for."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from threading import Lock

from medseg_gym.episodes.volumes import VolumeEpisode
from medseg_gym.play.volumes.masks import nbytes


class VolumeShelf:
    """Holds episodes within a bound of memory; the newest always.

    Args:
        max_bytes: Bytes of all episodes together.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._held: OrderedDict[str, tuple[str, VolumeEpisode, int]] = OrderedDict()
        self._lock = Lock()

    def put(self, owner: str, episode: VolumeEpisode) -> str:
        """Hold an episode; returns its unguessable id."""
        id = secrets.token_urlsafe(24)
        with self._lock:
            self._held[id] = owner, episode, nbytes(episode)
            while len(self._held) > 1 and sum(size for *_, size in self._held.values()) > (
                self.max_bytes
            ):
                self._held.popitem(last=False)
        return id

    def find(self, owner: str, id: str) -> VolumeEpisode | None:
        """Return an episode of an owner; None where there is none."""
        with self._lock:
            held = self._held.get(id)
            if held is None or held[0] != owner:
                return None
            self._held.move_to_end(id)
            return held[1]
