"""Games on images: sessions of the service on known cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medseg_gym.cases import Case
from medseg_gym.envs.options import EnvOptions
from medseg_gym.envs.views.array import ArrayView
from medseg_gym.episodes import Episode, StepResult
from medseg_gym.play.catalog import Place
from medseg_gym.play.describe import describe_state, describe_steps, truth_text
from medseg_gym.play.games import Game, GameBook
from medseg_gym.play.options import PageOptions
from medseg_gym.play.stores.recordings import Recordings
from medseg_gym.prompts import TOOLS, Prompt, answered_tools
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.sessions.book import SessionBook
from medseg_gym.serving.sessions.session import Session


@dataclass(eq=False)
class ImageGame(Game):
    """One person's episode on an image.

    Args:
        session: Session of the service.
    """

    session: Session

    @property
    def episode(self) -> Episode:
        """The episode."""
        return self.session.episode

    @property
    def formats(self) -> Sequence[str]:
        """Formats of the mask as a file."""
        return ["png"]

    def describe(self, since: int = 0) -> dict[str, Any]:
        """Describe the game as JSON, without the first `since` steps."""
        shown = self.rewards[: self.shown_steps]
        description = super().describe(since) | {
            "steps": describe_steps(self.episode, shown, self.scored, since),
            "state": describe_state(self.episode.state),
        }
        if self.shows_truth:
            description["truth"] = truth_text(self.episode.case)
        return description


class ImageGames(GameBook[ImageGame]):
    """Games on images.

    Args:
        book: Sessions of the service.
        options: Options of the page.
        recordings: Stores to which steps are written.
    """

    def __init__(self, book: SessionBook, options: PageOptions, recordings: Recordings) -> None:
        kinds = book.segmenter.facts.prompt_kinds
        tools = answered_tools(TOOLS, kinds)
        max_steps = min(options.max_steps, book.limits.max_steps)
        super().__init__(book.segmenter, options, recordings, max_steps, tools, tools)
        self.book = book
        self._games: dict[str, ImageGame] = {}
        self.codec = ArrayView((), tools=self.tools).codec

    def env_options(self, place: Place) -> EnvOptions:
        """See `GameBook`."""
        decode = self.segmenter.engine.options
        return EnvOptions(
            cases=place.spec or place.source,  # type: ignore[arg-type]
            split=place.split,
            reward=self.options.reward,
            max_steps=self.max_steps,
            tools=self.tools,
            prompt_memory=decode.prompt_memory,
            mask_input=decode.mask_input,
            multimask=decode.multimask,
            text_prompt=decode.text_prompt,
            **{"backbone": self.segmenter.served.backbone, **self.options.provenance},
        )

    def view_settings(self, case: Case) -> Mapping[str, Any]:
        """See `GameBook`."""
        del case
        return ArrayView((), EnvOptions.image_size, self.codec.bins, self.tools).settings

    def on_grid(self, game: ImageGame, prompt: Prompt) -> Prompt:
        """See `GameBook`."""
        del game
        rounded: Prompt
        (rounded,) = self.codec.decode(self.codec.encode(prompt)[None])
        return rounded

    async def begin(
        self, owner: str, place: Place, index: int, case: Case, player: str, exam: bool
    ) -> ImageGame:
        """See `GameBook`."""
        facts = self.facts_of(place, case, player, exam)
        await self.recordings.open(owner)
        holder: list[ImageGame] = []
        session = await self.book.open(
            owner, case, None, self.max_steps, lambda: self._ended(holder[0])
        )
        game = ImageGame(session.id, owner, session.lock, place, index, exam, facts, session)
        holder.append(game)
        self._games[session.id] = game
        return game

    def _ended(self, game: ImageGame) -> None:
        self._games.pop(game.id, None)
        self.gone(game)

    def find(self, owner: str, id: str) -> ImageGame | None:
        """See `GameBook`."""
        try:
            return self._games.get(self.book.get(owner, id, game=True).id)
        except ServiceError:
            return None

    def close(self, game: ImageGame, why: str = "closed") -> None:
        """See `GameBook`."""
        self.book.close(game.session, why)

    async def _take(self, game: ImageGame, prompt: Prompt) -> StepResult:
        return await self.book.step(game.session, prompt)
