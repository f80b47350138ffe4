"""One worker of a process for each choice of options."""

from __future__ import annotations

import json
import threading
from typing import Any

from medseg_agents.chat_episodes.worker import EpisodeWorker

_workers: dict[str, EpisodeWorker] = {}
_building = threading.Lock()


def worker_of(options: dict[str, Any]) -> EpisodeWorker:
    """Return the worker of this process for these arguments of `EpisodeWorker`; make it once.

    All who name the same options share it, and with it the segmenter and its embeddings.
    """
    name = json.dumps(options, sort_keys=True, default=str)
    with _building:
        if name not in _workers:
            _workers[name] = EpisodeWorker(**options)
        return _workers[name]
