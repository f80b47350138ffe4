"""Games of people on images or volumes: played step by step, and recorded as they are played."""

from __future__ import annotations

import asyncio
import secrets
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, TypeVar

from medseg_gym.cases import Case, VolumeCase
from medseg_gym.envs.options import EnvOptions
from medseg_gym.episodes import Episode, StepResult
from medseg_gym.episodes.volumes import VolumeEpisode
from medseg_gym.play.catalog import Place, describe_case
from medseg_gym.play.options import PageOptions
from medseg_gym.play.stores.recordings import Recordings
from medseg_gym.serving.batching.segmenter import Segmenter
from medseg_gym.serving.errors import ServiceError
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


class Verdict(NamedTuple):
    """A person's word on the game that a step may end.

    Args:
        accepted: Whether it is a good example; None without an answer.
        least_dice: Dice below which it is none, whatever the person said.
    """

    accepted: bool | None = None
    least_dice: float = 0.0

    def on(self, episode: Episode | VolumeEpisode) -> bool | None:
        """Return `accepted`, or False for a mask below the least Dice or without any overlap.

        Args:
            episode: A finished episode; where its truth is not known, the person's word counts.
        """
        missed = episode.case.truth_known and not episode.dice >= max(self.least_dice, 1e-12)
        return False if self.accepted and missed else self.accepted


@dataclass(eq=False)
class Game(ABC):
    """One person's episode.

    Args:
        id: Unguessable.
        owner: The only one who can continue it.
        lock: Requests on one game take turns.
        place: Source of the case.
        index: Position of the case in its source.
        exam: Scores are shown after the end only.
        facts: Facts of the episode in the recording; None where it is not recorded.
        rewards: One per step.
        recording: Id in the store while it runs; None before the first step and after the last.
        recorded: Number of steps on disk.
        accepted: Whether it is a good example, once it is over.
    """

    id: str
    owner: str
    lock: asyncio.Lock
    place: Place
    index: int
    exam: bool
    facts: EpisodeFacts | None
    rewards: list[float] = field(default_factory=list, kw_only=True)
    recording: str | None = field(default=None, kw_only=True)
    recorded: int = field(default=0, kw_only=True)
    accepted: bool | None = field(default=None, kw_only=True)

    @property
    @abstractmethod
    def episode(self) -> Any:
        """The `Episode` or `VolumeEpisode`."""

    @property
    def case(self) -> Case | VolumeCase:
        """Case of this game."""
        case: Case | VolumeCase = self.episode.case
        return case

    @property
    def scored(self) -> bool:
        """True if scores may be shown now."""
        return self.case.truth_known and (self.episode.done or not self.exam)

    @property
    def shows_truth(self) -> bool:
        """True if the truth may be shown now."""
        return self.case.truth_known and self.episode.done

    @property
    @abstractmethod
    def formats(self) -> Sequence[str]:
        """Formats of the mask as a file."""

    @property
    def shown_steps(self) -> int:
        """Steps that may be described: of a recorded game those on disk."""
        return self.recorded if self.facts is not None else len(self.rewards)

    def describe(self, since: int = 0) -> dict[str, Any]:
        """Describe the game as JSON, without the first `since` steps."""
        episode, facts = self.episode, self.facts
        description: dict[str, Any] = {
            "game": self.id,
            "place": self.place.name,
            "index": self.index,
            "case": describe_case(self.case),
            "exam": self.exam,
            "player": "" if facts is None else facts.policy.removeprefix(PERSON),
            "try": facts.key.rollout + 1 if facts is not None and self.recorded else None,
            "kept": facts is not None,
            "formats": self.formats,
            "max_steps": episode.max_steps,
            "steps_left": episode.steps_left,
            "done": episode.done,
            "stopped": episode.stopped,
            "taken": self.shown_steps,
            "recorded": self.recorded,
            "accepted": self.accepted,
        }
        if self.scored:
            description |= {"start_dice": episode.start_dice, "dice": episode.dice}
            description["return"] = sum(self.rewards)
        return description


GameT = TypeVar("GameT", bound=Game)


class GameBook(ABC, Generic[GameT]):
    """Begins games and takes their steps.

    Args:
        segmenter: The service's.
        options: Options of the page.
        recordings: Stores to which steps are written.
        max_steps: Actions in a game, of people and policies alike.
        tools: What people can do.
        policy_tools: What a policy can do that does not say what it does.
    """

    noun = "game"
    env_id = "MedSeg-v0"

    def __init__(
        self,
        segmenter: Segmenter,
        options: PageOptions,
        recordings: Recordings,
        max_steps: int,
        tools: Sequence[str],
        policy_tools: Sequence[str],
    ) -> None:
        self.segmenter, self.options, self.recordings = segmenter, options, recordings
        self.max_steps = max_steps
        self.tools, self.policy_tools = tuple(tools), tuple(policy_tools)

    # what is played -----------------------------------------------------------------------------
    @abstractmethod
    def env_options(self, place: Place) -> EnvOptions:
        """Return the options of an environment that plays the same, for the recordings."""

    @abstractmethod
    def view_settings(self, case: Any) -> Mapping[str, Any]:
        """Return the settings of the view in which people's actions are exact."""

    @abstractmethod
    def on_grid(self, game: GameT, prompt: Any) -> Any:
        """Round a prompt to the grid of the array actions, so that exports are exact."""

    def facts_of(self, place: Place, case: Any, player: str, exam: bool) -> EpisodeFacts:
        """Return the facts of a person's game, for the recording."""
        options = self.env_options(place)
        backbone, policy = self.segmenter.served.backbone, person_policy(player)
        settings = self.view_settings(case)
        shared = option_facts(options, place.source.name, backbone, settings, policy, False)
        shared["options"]["exam"] = exam
        return episode_facts(EpisodeKey(case.key, secrets.randbits(62), 0), case, shared)

    # games --------------------------------------------------------------------------------------
    @abstractmethod
    async def begin(
        self, owner: str, place: Place, index: int, case: Any, player: str, exam: bool
    ) -> GameT:
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

    @abstractmethod
    def find(self, owner: str, id: str) -> GameT | None:
        """Return a game of an owner; None where there is none."""

    @abstractmethod
    def close(self, game: GameT, why: str = "closed") -> None:
        """End a game; what was recorded of it stays as unfinished. Twice is harmless."""

    @abstractmethod
    async def _take(self, game: GameT, prompt: Any) -> StepResult:
        """Take a step that was checked."""

    def gone(self, game: GameT) -> None:
        """Leave the recording of a game that ended early as unfinished."""
        if game.recording is not None:
            self.recordings.abandon(game.owner, game.recording)
            game.recording = None

    async def rename(self, game: GameT, player: str, exam: bool) -> None:
        """Change the player or exam mode of a game without steps.

        Raises:
            ServiceError: 409, it has steps.
        """
        async with game.lock:
            if game.episode.steps:
                raise ServiceError("this game has begun: another name counts from the next on", 409)
            if game.facts is not None:
                options = {**game.facts.options, "exam": exam}
                game.facts = replace(game.facts, policy=person_policy(player), options=options)
            game.exam = exam

    async def step(self, game: GameT, prompt: Any, expected: int, verdict: Verdict) -> StepResult:
        """Take a step and record it.

        Args:
            game: The game.
            prompt: The action; it is rounded to the grid of the array actions.
            expected: Number of steps that the tab knows; another tab may have taken more.
            verdict: On the game, if it ends here.

        Raises:
            ServiceError: The game is over or went on elsewhere; or the step could not be recorded,
                which ends the game.
        """
        if prompt.tool not in self.tools:
            raise ServiceError(f"{self.segmenter.facts.name} takes no {prompt.tool} here")
        async with game.lock:
            if len(game.episode.steps) != expected:
                raise ServiceError(
                    "this game went on in another tab; here is how it stands now", 409
                )
            result = await self._take(game, self.on_grid(game, prompt))
            game.rewards.append(result.reward)
            if game.facts is not None:
                await self._record(game, game.facts, result, verdict)
        return result

    async def _record(
        self, game: GameT, facts: EpisodeFacts, result: StepResult, verdict: Verdict
    ) -> None:
        if result.terminated:
            game.accepted = verdict.on(game.episode)
        try:
            id, game.facts = await self.recordings.add(
                game.owner, game.recording, facts, game.episode, result, game.accepted
            )
        except BaseException as error:
            # A recording with a hole would be false: the game ends with what is on disk.
            self.close(game, "unrecorded")
            if isinstance(error, TrajectoryError):
                message = self.recordings.public_message(error)
                raise ServiceError(
                    f"this game ended, it cannot be recorded: {message}", 507
                ) from error
            raise
        game.recording = None if result.terminated else id
        game.recorded = len(game.episode.steps)


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
