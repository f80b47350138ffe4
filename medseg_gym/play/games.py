"""Games of people: sessions of the service on known cases, recorded step by step."""

from __future__ import annotations

import secrets
import unicodedata
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from medseg_gym.cases import Case
from medseg_gym.envs.options import EnvOptions
from medseg_gym.envs.views.array import ArrayView
from medseg_gym.episodes import Episode, EpisodeSummary, StepResult
from medseg_gym.play.catalog import Place, describe_case
from medseg_gym.play.describe import describe_state, describe_steps, truth_text
from medseg_gym.play.options import PageOptions
from medseg_gym.play.stores.recordings import Recordings
from medseg_gym.prompts import TOOLS, Prompt
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.sessions.book import SessionBook
from medseg_gym.serving.sessions.session import Session
from medseg_gym.trajectories import EpisodeFacts, EpisodeKey, TrajectoryError
from medseg_gym.trajectories.recording.provenance import option_facts
from medseg_gym.trajectories.recording.step_log import episode_facts

PERSON = "person:"
"""Prefix of people in the column `policy`, so that no name can pass for a policy's."""

MAX_NAME_LENGTH = 40


class Player(NamedTuple):
    """A player on the leader board; exams, in which no Dice is shown, count separately."""

    policy: str
    exam: bool


@dataclass(eq=False)
class Game:
    """One person's episode.

    Args:
        session: Session of the service.
        place: Source of the case.
        index: Position of the case in its source.
        exam: Scores are shown after the end only.
        facts: Facts of the episode in the recording.
        rewards: One per step.
        recording: Id in the store while it runs; None before the first step and after the last.
        recorded: Number of steps on disk.
        accepted: Whether it is a good example, once it is over.
    """

    session: Session
    place: Place
    index: int
    exam: bool
    facts: EpisodeFacts
    rewards: list[float] = field(default_factory=list)
    recording: str | None = None
    recorded: int = 0
    accepted: bool | None = None

    @property
    def case(self) -> Case:
        """Case of this game."""
        return self.session.case

    @property
    def scored(self) -> bool:
        """True if scores may be shown now."""
        return self.case.truth_known and (self.session.episode.done or not self.exam)

    def describe(self, since: int = 0) -> dict[str, Any]:
        """Describe the game as JSON, without the first `since` steps."""
        episode = self.session.episode
        description: dict[str, Any] = {
            "game": self.session.id,
            "place": self.place.name,
            "index": self.index,
            "case": describe_case(self.case),
            "exam": self.exam,
            "player": self.facts.policy.removeprefix(PERSON),
            "try": self.facts.key.rollout + 1 if self.recorded else None,
            "max_steps": episode.max_steps,
            "steps_left": episode.steps_left,
            "done": episode.done,
            "stopped": episode.stopped,
            "recorded": self.recorded,
            "accepted": self.accepted,
            "steps": describe_steps(episode, self.rewards[: self.recorded], self.scored, since),
            "state": describe_state(episode.state),
        }
        if self.scored:
            summary = EpisodeSummary.of(episode, rewards=self.rewards)
            description |= {"start_dice": summary.start_dice, "dice": summary.dice}
            description["return"] = summary.episode_return
        if episode.done and self.case.truth_known:
            description["truth"] = truth_text(self.case)
        return description


class GameBook:
    """Begins games and takes their steps.

    Args:
        book: Sessions of the service.
        options: Options of the page.
        recordings: Stores to which steps are written.
    """

    def __init__(self, book: SessionBook, options: PageOptions, recordings: Recordings) -> None:
        self.book = book
        self.options = options
        self.recordings = recordings
        self._games: dict[str, Game] = {}
        facts = book.segmenter.facts
        kinds = {"box": "box", "positive_point": "point", "negative_point": "point"}
        self.tools = tuple(t for t in TOOLS if kinds.get(t, "box") in facts.prompt_kinds)
        self.codec = ArrayView((), tools=self.tools).codec

    @property
    def max_steps(self) -> int:
        """Actions in a game."""
        return min(self.options.max_steps, self.book.limits.max_steps)

    def env_options(self, place: Place) -> EnvOptions:
        """Return the options of an environment that plays the same, for the recordings."""
        segmenter = self.book.segmenter
        decode = segmenter.engine.options
        return EnvOptions(
            cases=place.spec or place.source,
            split=place.split,
            reward=self.options.reward,
            max_steps=self.max_steps,
            tools=self.tools,
            prompt_memory=decode.prompt_memory,
            mask_input=decode.mask_input,
            multimask=decode.multimask,
            text_prompt=decode.text_prompt,
            **{"backbone": segmenter.served.backbone, **self.options.provenance},
        )

    async def begin(
        self, owner: str, place: Place, index: int, case: Case, player: str, exam: bool
    ) -> Game:
        """Begin a game.

        Args:
            owner: The only one who can continue it.
            place: Source of the case.
            index: Position of the case in its source.
            case: The case to segment.
            player: Name of the person, as typed.
            exam: Show scores after the end only.

        Raises:
            ServiceError: A limit is reached, or the owner's store cannot be written.
        """
        name = person_policy(player)
        await self.recordings.open(owner)
        facts = self._facts(place, case, name, exam)
        holder: list[Game] = []
        session = await self.book.open(
            owner, case, None, self.max_steps, lambda: self._ended(owner, holder[0])
        )
        game = Game(session, place, index, exam, facts)
        holder.append(game)
        self._games[session.id] = game
        return game

    def _facts(self, place: Place, case: Case, policy: str, exam: bool) -> EpisodeFacts:
        options = self.env_options(place)
        settings = ArrayView((), options.image_size, options.bins, self.tools).settings
        backbone = self.book.segmenter.served.backbone
        shared = option_facts(options, place.source.name, backbone, settings, policy, False)
        shared["options"]["exam"] = exam
        return episode_facts(EpisodeKey(case.key, secrets.randbits(62), 0), case, shared)

    async def rename(self, game: Game, player: str, exam: bool) -> None:
        """Change the player or exam mode of a game without steps.

        Raises:
            ServiceError: 409, it has steps.
        """
        async with game.session.lock:
            if game.session.episode.steps:
                raise ServiceError("this game has begun: another name counts from the next on", 409)
            options = {**game.facts.options, "exam": exam}
            game.facts = replace(game.facts, policy=person_policy(player), options=options)
            game.exam = exam

    def _ended(self, owner: str, game: Game) -> None:
        self._games.pop(game.session.id, None)
        if game.recording is not None:
            self.recordings.abandon(owner, game.recording)

    def get(self, owner: str, id: str) -> Game:
        """Return a game of an owner.

        Raises:
            ServiceError: 404.
        """
        try:
            return self._games[self.book.get(owner, id, game=True).id]
        except (ServiceError, KeyError):
            raise ServiceError(
                "this game is not there any more: it ended, was idle for too long, or the service "
                "was restarted. Its steps are recorded; begin a new game",
                404,
            ) from None

    async def step(
        self, game: Game, prompt: Prompt, expected: int, accepted: bool | None
    ) -> StepResult:
        """Take a step and record it.

        Args:
            game: The game.
            prompt: Rounded to the grid of the array actions, so that exports are exact.
            expected: Number of steps that the tab knows; another tab may have taken more.
            accepted: Whether the game is a good example, if it ends here.

        Raises:
            ServiceError: The game is over or went on elsewhere; or the step could not be recorded,
                which ends the game.
        """
        session = game.session
        if prompt.tool not in self.tools:
            raise ServiceError(f"{self.book.segmenter.facts.name} takes no {prompt.tool}")
        (on_grid,) = self.codec.decode(self.codec.encode(prompt)[None])
        async with session.lock:
            if len(session.episode.steps) != expected:
                raise ServiceError(
                    "this game went on in another tab; here is how it stands now", 409
                )
            result = await self.book.step(session, on_grid)
            game.rewards.append(result.reward)
            if result.terminated:
                game.accepted = accepted = accept_unless_missed(session.episode, accepted)
            try:
                id, game.facts = await self.recordings.add(
                    session.owner, game.recording, game.facts, session.episode, result, accepted
                )
            except BaseException as error:
                # A recording with a hole would be false: the game ends with what is on disk.
                self.book.close(session, "unrecorded")
                if isinstance(error, TrajectoryError):
                    message = self.recordings.public_message(error)
                    raise ServiceError(
                        f"this game ended, it cannot be recorded: {message}", 507
                    ) from error
                raise
            game.recording = None if result.terminated else id
            game.recorded = len(session.episode.steps)
        return result


def accept_unless_missed(episode: Episode, accepted: bool | None) -> bool | None:
    """Return `accepted`, or False for a mask that does not overlap the ground truth.

    Args:
        episode: A finished episode.
        accepted: Whether the person called it a good example; None without an answer.
    """
    missed = episode.case.truth_known and episode.dice == 0
    return False if accepted and missed else accepted


def clean_text(text: str, max_length: int, otherwise: str = "") -> str:
    """Make typed text printable, with single blanks, and limit its length.

    Args:
        text: Text as typed.
        max_length: Limit in characters.
        otherwise: Returned if nothing is left.
    """
    plain = "".join(c if unicodedata.category(c)[0] not in "CZ" else " " for c in text)
    return " ".join(plain.split())[:max_length].strip() or otherwise


def person_policy(text: str) -> str:
    """Return the value of the column `policy` for a person's name."""
    return PERSON + clean_text(text, MAX_NAME_LENGTH, "anonymous")
