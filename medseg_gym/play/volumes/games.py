"""Games on volumes: episodes of the volume engine over the service's segmenter."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from weakref import WeakKeyDictionary

import numpy as np

from medseg_gym.backbones.cache import embedding_cache
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.episodes import StepResult
from medseg_gym.episodes.volumes import SliceState, VolumeEngine, VolumeEpisode
from medseg_gym.episodes.volumes.decoding import SliceDecoder
from medseg_gym.errors import EpisodeError
from medseg_gym.play.policy_runner import SharedSegmenter
from medseg_gym.play.volumes.ahead import EncodingAhead
from medseg_gym.play.volumes.catalog import VolumePlace
from medseg_gym.prompts.volumes import VolumePrompt
from medseg_gym.serving.batching.segmenter import Segmenter
from medseg_gym.serving.errors import ServiceError

MAX_GAMES = 4
"""Games on volumes of one owner; a further one ends the one that was idle for the longest."""

_PIXEL_BYTES = 1 << 29
"""Pixels kept for slices whose embedding the service may have dropped."""


@dataclass(eq=False)
class VolumeGame:
    """One person's episode on a volume.

    Args:
        id: Unguessable.
        owner: The only one who can continue it.
        place: Source of the volume.
        index: Position of the volume in its source.
        engine: Engine with this one episode.
        exam: Scores are shown after the end only.
        lock: Requests on one game take turns.
    """

    id: str
    owner: str
    place: VolumePlace
    index: int
    engine: VolumeEngine
    exam: bool
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.used = time.monotonic()
        self.closed = False
        self._numbers: WeakKeyDictionary[SliceState, int] = WeakKeyDictionary()
        self._next = count(1)

    @property
    def episode(self) -> VolumeEpisode:
        """The episode."""
        return self.engine.episode(0)

    @property
    def case(self) -> VolumeCase:
        """Volume of this game."""
        return self.episode.case

    @property
    def scored(self) -> bool:
        """True if scores may be shown now."""
        return self.case.truth_known and (self.episode.done or not self.exam)

    def number_of(self, state: SliceState) -> int:
        """Return a number for the mask of a slice; another mask has another one."""
        number = self._numbers.get(state)
        if number is None:
            number = self._numbers.setdefault(state, next(self._next))
        return number

    def mask_of(self, index: int, number: int) -> np.ndarray:
        """Return the mask of a slice that has this number, now or after an earlier step.

        Raises:
            ServiceError: 404.
        """
        for step in reversed(self.episode.steps):
            state = step.state.slices.get(index)
            if state is not None and self.number_of(state) == number:
                return state.mask(self.case.width)
        raise ServiceError(f"slice {index} has no mask {number}", 404)

    def nbytes(self) -> int:
        """Bytes of the volume and of the masks and logits of all steps, which undo needs."""
        steps = self.episode.steps
        states = {one for step in steps for one in step.state.slices.values()}
        masks = sum(int(one.bits.nbytes) for one in states)
        logits = sum(int(one.logits.nbytes) for one in states if one.logits is not None)
        return int(self.case.image.nbytes) + masks + logits


class VolumeGameBook:
    """Begins games on volumes and takes their steps.

    Args:
        segmenter: The service's.
        max_steps: Actions in a game.
        max_bytes: See `PageOptions.volume_bytes`.
        idle_seconds: A game that was not used for so long ends.
        on_idle: Called now and then in a thread of its own.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        max_steps: int,
        max_bytes: int,
        idle_seconds: float,
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        self.max_steps, self.max_bytes, self.idle_seconds = max_steps, max_bytes, idle_seconds
        self._options = segmenter.engine.options
        self._backbone = SharedSegmenter(segmenter)
        embedding_cache(self._backbone).max_bytes = _PIXEL_BYTES
        self._games: dict[str, VolumeGame] = {}
        self.ahead = EncodingAhead(SliceDecoder(self._backbone, self._options), on_idle)

    def begin(
        self, owner: str, place: VolumePlace, index: int, case: VolumeCase, exam: bool
    ) -> VolumeGame:
        """Begin a game.

        Raises:
            ServiceError: 507, the volume is larger than the owner's volumes may be together.
        """
        mine = sorted((g for g in self._games.values() if g.owner == owner), key=lambda g: g.used)
        idle = [game for game in mine if not game.lock.locked()]
        while idle and (len(mine) >= MAX_GAMES or self._held(owner, case) > self.max_bytes):
            game = idle.pop(0)
            mine.remove(game)
            self.close(game)
        if self._held(owner, case) > self.max_bytes:
            raise ServiceError(
                f"this volume takes up {case.image.nbytes >> 20} MiB, and yours may hold "
                f"{self.max_bytes >> 20} MiB together",
                507,
            )
        engine = VolumeEngine(self._backbone, max_steps=self.max_steps, options=self._options)
        engine.reset([0], [case])
        game = VolumeGame(secrets.token_urlsafe(24), owner, place, index, engine, exam)
        self._games[game.id] = game
        return game

    def _held(self, owner: str, case: VolumeCase | None = None) -> int:
        held = sum(game.nbytes() for game in self._games.values() if game.owner == owner)
        return held + (case.image.nbytes if case is not None else 0)

    def get(self, owner: str, id: str) -> VolumeGame:
        """Return a game of an owner.

        Raises:
            ServiceError: 404.
        """
        game = self._games.get(id)
        if game is None or game.owner != owner:
            raise ServiceError(
                "this volume is not open any more: it was idle for too long, others were opened, "
                "or the service was restarted; open it again",
                404,
            )
        game.used = time.monotonic()
        return game

    async def step(self, game: VolumeGame, prompt: VolumePrompt, expected: int) -> StepResult:
        """Take a step.

        Args:
            game: The game.
            prompt: The action.
            expected: Number of steps that the tab knows; another tab may have taken more.

        Raises:
            ServiceError: The game is over or went on elsewhere, or its steps take too much memory.
        """
        async with game.lock:
            if game.closed:
                raise ServiceError("this volume is not open any more; open it again", 404)
            if len(game.episode.steps) != expected:
                raise ServiceError(
                    "this game went on in another tab; here is how it stands now", 409
                )
            if game.episode.done:
                raise ServiceError("this game is over; begin a new one", 409)
            if self._held(game.owner) > self.max_bytes:
                raise ServiceError(
                    f"the steps on your volumes take up {self.max_bytes >> 20} MiB, which is the "
                    "limit; download the mask and open the volume again",
                    507,
                )
            self.ahead.begin_step()
            try:
                (result,) = await asyncio.to_thread(game.engine.step, [0], [prompt])
            except EpisodeError as error:
                raise ServiceError(str(error), 409) from error
            finally:
                self.ahead.end_step()
                game.used = time.monotonic()
            return result

    def close(self, game: VolumeGame) -> None:
        """Drop a game; a second call does nothing."""
        game.closed = True
        self._games.pop(game.id, None)
        self.ahead.forget(game.id)

    def close_idle(self) -> None:
        """Close games that were idle for too long."""
        now = time.monotonic()
        for game in list(self._games.values()):
            if now - game.used > self.idle_seconds and not game.lock.locked():
                self.close(game)

    def playing(self, case: VolumeCase) -> bool:
        """Return whether somebody plays this very volume."""
        return any(game.case is case for game in list(self._games.values()))

    def close_those_on(self, case: VolumeCase) -> None:
        """Close the games on a volume."""
        for game in list(self._games.values()):
            if game.case is case:
                self.close(game)

    def stop(self) -> None:
        """Close all games and end the thread."""
        for game in list(self._games.values()):
            self.close(game)
        self.ahead.stop()
