"""Slices encoded before somebody prompts them: the one in view first, then its neighbours."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.episodes.volumes.decoding import SliceDecoder
from medseg_gym.errors import MedSegError

log = logging.getLogger("medseg_gym.serving")

REACH = 12
"""Slices that are encoded ahead in either direction of the one in view."""

_SWEEP_SECONDS = 20.0


@dataclass(eq=False)
class _Wish:
    """Slices that somebody is likely to prompt next."""

    case: VolumeCase
    order: Iterator[int]
    centre: int
    ready: Future[bool] = field(default_factory=Future)


class EncodingAhead:
    """A thread that encodes slices one at a time, so that a prompt waits for one at the most.

    Args:
        decoder: With the backbone and the cache of embeddings that games use too.
        on_idle: Called now and then, for what else has to be looked after.
    """

    def __init__(self, decoder: SliceDecoder, on_idle: Callable[[], None] = lambda: None) -> None:
        self._decoder = decoder
        self._on_idle = on_idle
        self._wishes: dict[str, _Wish] = {}  # by game; the newest last
        self._awake = threading.Condition()
        self._steps = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="encoding-ahead", daemon=True)
        self._thread.start()

    def look(self, game: str, case: VolumeCase, index: int) -> Future[bool]:
        """Encode a slice and its neighbours; what the game wished before is given up.

        Returns:
            True once the slice is encoded; False if the view has moved on before.
        """
        wish = _Wish(case, iter(_outward(index, case.depth)), index)
        wish.ready.set_running_or_notify_cancel()  # a client that goes away cannot cancel it
        with self._awake:
            self._give_up(game)
            if self._stopping:
                wish.ready.set_result(False)
            else:
                self._wishes[game] = wish
                self._awake.notify()
        return wish.ready

    def forget(self, game: str) -> None:
        """Give up what a game wished."""
        with self._awake:
            self._give_up(game)

    def begin_step(self) -> None:
        """Pause, for a prompt is to be answered; `end_step` goes on."""
        with self._awake:
            self._steps += 1

    def end_step(self) -> None:
        """Go on after a step."""
        with self._awake:
            self._steps -= 1
            self._awake.notify()

    def stop(self) -> None:
        """End the thread after the slice that it is at."""
        with self._awake:
            self._stopping = True
            for game in list(self._wishes):
                self._give_up(game)
            self._awake.notify()
        self._thread.join()

    def _give_up(self, game: str) -> None:
        old = self._wishes.pop(game, None)
        if old is not None and not old.ready.done():
            old.ready.set_result(False)

    def _run(self) -> None:
        while True:
            with self._awake:
                self._awake.wait_for(
                    lambda: self._stopping or (self._wishes and not self._steps), _SWEEP_SECONDS
                )
                if self._stopping:
                    return
                # A slice in view comes before neighbours, the newest wish before older ones.
                wishes = [] if self._steps else list(self._wishes.items())[::-1]
                waiting = [one for one in wishes if not one[1].ready.done()]
                game, wish = next(iter(waiting or wishes), ("", None))
                index = None if wish is None else next(wish.order, None)
                if wish is not None and index is None:
                    del self._wishes[game]
            if wish is None:
                self._look_after_others()
            elif index is not None:
                self._encode(game, wish, index)

    def _look_after_others(self) -> None:
        try:
            self._on_idle()
        except Exception:
            log.exception("volumes of the page could not be looked after")

    def _encode(self, game: str, wish: _Wish, index: int) -> None:
        try:
            self._decoder.prepare(wish.case, index)
        except MedSegError as error:  # the prompt on that slice will say so
            log.warning("a slice could not be encoded ahead", exc_info=error)
        except Exception:
            log.exception("a slice could not be encoded ahead")
        with self._awake:
            if index == wish.centre and not wish.ready.done():
                wish.ready.set_result(True)


def _outward(index: int, depth: int) -> list[int]:
    """A slice and its neighbours, the nearest first."""
    near = sorted(range(-REACH, REACH + 1), key=lambda away: (abs(away), away < 0))
    return [index + away for away in near if 0 <= index + away < depth]
