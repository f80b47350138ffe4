"""Games on volumes: episodes of the volume engine over the service's segmenter."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medseg_gym.backbones.cache import embedding_cache
from medseg_gym.cases import VolumeCase
from medseg_gym.envs.volumes.options import VolumeOptions
from medseg_gym.episodes import StepResult
from medseg_gym.episodes.volumes import PropagationOptions, VolumeEngine, VolumeEpisode
from medseg_gym.episodes.volumes.decoding import SliceDecoder
from medseg_gym.errors import EpisodeError
from medseg_gym.play.catalog import Place
from medseg_gym.play.games import Game, GameBook
from medseg_gym.play.options import VOLUME_ENV, PageOptions
from medseg_gym.play.stores.recordings import Recordings
from medseg_gym.play.volumes.ahead import EncodingAhead
from medseg_gym.play.volumes.describe import describe_slices, describe_volume_steps, truth_slices
from medseg_gym.play.volumes.downloads import formats_of
from medseg_gym.play.volumes.masks import first_steps, nbytes
from medseg_gym.prompts import answered_tools
from medseg_gym.prompts.volumes import VOLUME_TOOLS, VolumeCodec, VolumePrompt
from medseg_gym.serving.batching.segmenter import Segmenter
from medseg_gym.serving.batching.shared_segmenter import SharedSegmenter
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.routes.images import mask_text

MAX_GAMES = 4
"""Games on volumes of one owner; a further one ends the one that was idle for the longest."""

PIXEL_BYTES = 1 << 29
"""Pixels kept for slices whose embedding the service may have dropped."""


@dataclass(eq=False)
class VolumeGame(Game):
    """One person's episode on a volume.

    Args:
        engine: Engine with this one episode.
    """

    engine: VolumeEngine

    def __post_init__(self) -> None:
        self.used = time.monotonic()
        self.closed = False

    @property
    def episode(self) -> VolumeEpisode:
        """The episode."""
        return self.engine.episode(0)

    @property
    def formats(self) -> Sequence[str]:
        """Formats of the mask as a file."""
        return formats_of(self.episode.case)

    def describe(self, since: int = 0) -> dict[str, Any]:
        """Describe the game as JSON, without the first `since` steps.

        Masks of slices are named by number, but for that of the slice in view.
        """
        episode, state = self.episode, self.episode.state
        case, rewards = episode.case, self.rewards[: self.shown_steps]
        description = super().describe(since) | {
            "steps": describe_volume_steps(episode, rewards, self.scored, since, False),
            "view": episode.view,
            "voxels": state.pixels,
            "ml": None if case.voxel_ml is None else state.pixels * case.voxel_ml,
            "slices": describe_slices(state, first_steps(episode)),
        }
        shown = state.slices.get(episode.view)
        if shown is not None and shown.pixels:
            description["mask"] = mask_text(shown.mask(case.width))
        if self.shows_truth:
            description["truth"] = truth_slices(episode)
        return description


class VolumeGames(GameBook[VolumeGame]):
    """Games on volumes.

    Args:
        segmenter: The service's.
        options: Options of the page.
        recordings: Stores to which steps are written.
        on_idle: Called now and then in a thread of its own.
    """

    noun = "volume"
    env_id = VOLUME_ENV

    def __init__(
        self,
        segmenter: Segmenter,
        options: PageOptions,
        recordings: Recordings,
        on_idle: Callable[[], None] = lambda: None,
    ) -> None:
        kinds = segmenter.facts.prompt_kinds
        policy_tools = answered_tools(VOLUME_TOOLS, kinds)
        # A view is moved without an action here: people scroll, which costs nothing.
        tools = [tool for tool in policy_tools if tool != "look"]
        steps = options.volume_steps
        super().__init__(segmenter, options, recordings, steps, tools, policy_tools)
        self.idle_seconds = segmenter.limits.session_idle_seconds
        # The service's segmenter shows no memory of slices; recordings say so.
        self.propagation = PropagationOptions(memory=False)
        self._backbone = SharedSegmenter(segmenter)
        embedding_cache(self._backbone).max_bytes = PIXEL_BYTES
        self._decode = segmenter.engine.options
        self._games: dict[str, VolumeGame] = {}
        self.ahead = EncodingAhead(SliceDecoder(self._backbone, self._decode), on_idle)

    def env_options(self, place: Place) -> VolumeOptions:
        """See `GameBook`."""
        return VolumeOptions(
            cases=place.spec or place.source,  # type: ignore[arg-type]
            split=place.split,
            max_steps=self.max_steps,
            tools=self.policy_tools,
            mask_input=self._decode.mask_input,
            multimask=self._decode.multimask,
            text_prompt=self._decode.text_prompt,
            propagation=self.propagation,
            **{"backbone": self.segmenter.served.backbone, **self.options.provenance},
        )

    def view_settings(self, case: VolumeCase) -> Mapping[str, Any]:
        """See `GameBook`; every slice has a cell of its own."""
        codec = self._codec(case)
        return {
            "slices": codec.slices,
            "bins": codec.bins,
            "image_size": VolumeOptions.image_size,
            "overview_size": VolumeOptions.overview_size,
            "tools": list(self.tools),
        }

    def _codec(self, case: VolumeCase) -> VolumeCodec:
        return VolumeCodec(max(case.depth, VolumeOptions.slices), tools=self.tools)

    def on_grid(self, game: VolumeGame, prompt: VolumePrompt) -> VolumePrompt:
        """See `GameBook`; a slice that the volume does not have is left to the episode's rules."""
        case = game.episode.case
        if getattr(prompt, "slice", 0) >= case.depth:
            return prompt
        codec = self._codec(case)
        (rounded,) = codec.decode(codec.encode(prompt, case.depth)[None], [case.depth])
        return rounded

    async def begin(
        self, owner: str, place: Place, index: int, case: VolumeCase, player: str, exam: bool
    ) -> VolumeGame:
        """See `GameBook`; games on an owner's own scans are not recorded.

        Raises:
            ServiceError: 507, the volume is larger than the owner's volumes may be together.
        """
        facts = None
        if not place.own:
            facts = await asyncio.to_thread(self.facts_of, place, case, player, exam)
            await self.recordings.open(owner)
        self._make_room(owner, case)
        steps = self.options.scan_steps if place.own else self.max_steps
        engine = VolumeEngine(
            self._backbone, max_steps=steps, options=self._decode, propagation=self.propagation
        )
        engine.reset([0], [case])
        id = secrets.token_urlsafe(24)
        game = VolumeGame(id, owner, asyncio.Lock(), place, index, exam, facts, engine)
        self._games[id] = game
        return game

    def _make_room(self, owner: str, case: VolumeCase) -> None:
        mine = sorted((g for g in self._games.values() if g.owner == owner), key=lambda g: g.used)
        idle = [game for game in mine if not game.lock.locked()]
        limit = self.options.volume_bytes
        while idle and (len(mine) >= MAX_GAMES or self._held(owner, case) > limit):
            game = idle.pop(0)
            mine.remove(game)
            self.close(game)
        if self._held(owner, case) > limit:
            raise ServiceError(
                f"this volume takes up {case.image.nbytes >> 20} MiB, and yours may hold "
                f"{limit >> 20} MiB together",
                507,
            )

    def _held(self, owner: str, case: VolumeCase | None = None) -> int:
        mine = [game for game in list(self._games.values()) if game.owner == owner]
        return sum(nbytes(game.episode) for game in mine) + (case.image.nbytes if case else 0)

    def find(self, owner: str, id: str) -> VolumeGame | None:
        """See `GameBook`."""
        game = self._games.get(id)
        if game is None or game.owner != owner:
            return None
        game.used = time.monotonic()
        return game

    async def _take(self, game: VolumeGame, prompt: VolumePrompt) -> StepResult:
        if game.closed:
            raise ServiceError("this volume is not open any more; open it again", 404)
        if game.episode.done:
            raise ServiceError("this game is over; begin a new one", 409)
        if self._held(game.owner) > self.options.volume_bytes:
            raise ServiceError(
                f"the steps on your volumes take up {self.options.volume_bytes >> 20} MiB, which "
                "is the limit; download the mask and open the volume again",
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

    def close(self, game: VolumeGame, why: str = "closed") -> None:
        """See `GameBook`."""
        del why
        if not game.closed:
            game.closed = True
            self._games.pop(game.id, None)
            self.ahead.forget(game.id)
            self.gone(game)

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
