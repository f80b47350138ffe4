"""One thread that steps the chat episodes of many callers together.

Whatever calls wait when the thread becomes free are one batch: their new images are encoded in one
call, all steps are one `EpisodeEngine.step`, hence one decoder call, and images are drawn there,
too. Callers wait in asyncio, of any event loop; no loop ever computes.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from medseg_gym.backbones.remote.micro_batching import MicroBatcher, together
from medseg_gym.envs.views.chat import ChatView
from medseg_gym.envs.views.chat_kinds import IMAGE_CHAT, chat_kind
from medseg_gym.episodes import EpisodeSummary
from medseg_gym.errors import PolicyError

_STANDING = (
    *("case", "episode_return", "dice", "start_dice", "turns", "valid"),
    *("stopped", "done"),
)


@dataclass(frozen=True)
class Turn:
    """Result of one call: the next turn of the user.

    Args:
        text: What the user says; when the episode is over, `ChatTexts.over`.
        images: Beside it, in order; none when the episode is over.
        reward: Of the step; 0 in an episode that was over before.
        standing: The episode now: `case`, `episode_return`, `dice`, `start_dice`, `turns`, `valid`,
            `stopped` and `done` of `EpisodeSummary`, and `steps_left`.
        info: As `step` and `reset` of the environment give it; empty in an episode that was over
            before.
    """

    text: str
    images: tuple[Image.Image, ...]
    reward: float
    standing: dict[str, Any]
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class _Open:
    """An episode by its id."""

    case: str
    slot: int | None = None  # None before it begins and after it is over
    standing: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)  # of its first turn


@dataclass(frozen=True)
class _Call:
    episode: str
    case: str
    answer: str | None  # None asks for the first turn


class EpisodeWorker:
    """Episodes of a chat environment by id, stepped together.

    Args:
        max_batch: Episodes in one step at most.
        max_delay_ms: How long a call waits for others. A batch goes off earlier when it is full.
        env_id: Of the environment.
        **options: Those of the environment, see `ChatOptions`.

    Raises:
        MedSegError: An option, case source or backbone that cannot be used.
    """

    def __init__(
        self,
        max_batch: int = 64,
        max_delay_ms: float = 5.0,
        env_id: str = IMAGE_CHAT.env_id,
        **options: Any,
    ) -> None:
        if max_batch < 1 or max_delay_ms < 0:
            raise PolicyError(
                f"need max_batch >= 1 and max_delay_ms >= 0, got {max_batch}, {max_delay_ms}"
            )
        kind = chat_kind(env_id)
        self.core = kind.core(kind.options.from_arguments(options), 1)
        self.core.engine.own_memory = True  # episodes end at different times
        self.batches = 0
        # Touched by the thread alone:
        self._free = [0]
        self._episodes: dict[str, _Open] = {}
        # Of other threads; a finalizer adds to the first one at any moment, so there is no lock.
        self._dropped: deque[str] = deque()
        self._holders: Counter[str] = Counter()
        self._batcher = MicroBatcher(
            {"step": self._step_batch}, max_batch, max_delay_ms / 1000, name="medseg episodes"
        )

    @property
    def view(self) -> ChatView:
        """View of the environment: its words and images."""
        assert isinstance(self.core.view, ChatView)
        return self.core.view

    # what callers use -------------------------------------------------------------------------
    async def begin(self, episode: str, case: str) -> Turn:
        """Begin an episode and return its first turn, with reward 0.

        Args:
            episode: Id, chosen by the caller; a new one.
            case: Key of the case that it plays.

        Raises:
            CaseError: There is no such case.
            PolicyError: There is an episode of that id.
            MedSegError: The segmenter failed; there is no such episode.
        """
        if episode in self._episodes:
            raise PolicyError(f"episode {episode!r} has begun before; choose a new id")
        try:
            return await self._submit(_Call(episode, case, None))
        except Exception:
            self.drop(episode)
            raise

    async def step(self, episode: str, case: str, answer: str) -> Turn:
        """Take one step; the first call of an episode begins it.

        Calls of one episode are done in the order in which they arrive.

        Args:
            episode: Id, chosen by the caller.
            case: Key of the case that it plays.
            answer: The model's completion, or a call in words.

        Raises:
            CaseError: There is no such case.
            PolicyError: The episode plays another case.
            MedSegError: The segmenter failed; the episode is as it was.
        """
        return await self._submit(_Call(episode, case, answer))

    async def _submit(self, call: _Call) -> Turn:
        future = self._batcher.submit("step", call, 1, key=call.episode)
        turn: Turn = await asyncio.wrap_future(future)
        return turn

    def standing(self, episode: str) -> dict[str, Any]:
        """Return the standing of an episode (see `Turn`); empty where there is none."""
        opened = self._episodes.get(episode)
        return dict(opened.standing) if opened else {}

    def drop(self, episode: str) -> None:
        """Forget an episode before the next batch; without effect where there is none."""
        self._dropped.append(episode)

    def hold(self, episode: str) -> None:
        """Count a further holder of an episode."""
        self._holders[episode] += 1

    def let_go(self, episode: str) -> None:
        """Count one holder less; the last one's leaving drops it."""
        self._holders[episode] -= 1
        if self._holders[episode] <= 0:
            del self._holders[episode]
            self.drop(episode)

    # the thread -------------------------------------------------------------------------------
    def _step_batch(self, calls: list[_Call]) -> list[Turn | Exception]:
        """Take the steps of a batch, at most one of an episode."""
        self.batches += 1
        try:
            return self._step(calls)
        except Exception as error:  # the segmenter's; alone again, steps might be taken twice
            return [error] * len(calls)

    def _step(self, calls: list[_Call]) -> list[Turn | Exception]:
        self._forget()
        begun = together(self._begin, calls)  # a case that is not there is its caller's alone
        results: list[Any] = list(begun)  # exceptions stay where they are
        shown = [
            (index, opened)
            for index, opened in enumerate(begun)
            if isinstance(opened, _Open) and opened.slot is not None
        ]
        steps = self._steps(calls, [index for index, _ in shown], begun)
        if shown:
            observations = self.core.observe([opened.slot for _, opened in shown])
        for row, (index, opened) in enumerate(shown):
            step = steps.get(index)
            opened.standing = self._standing(opened)
            over = step is not None and step.terminated
            images = () if over else self.view.turn_images(observations, row)
            results[index] = Turn(
                observations["text"][row],
                tuple(map(Image.fromarray, images)),
                0.0 if step is None else float(step.reward),
                dict(opened.standing),
                opened.info if step is None else dict(step.info),
            )
            if over:
                self._free_slot(opened)
        for index, result in enumerate(results):
            if isinstance(result, _Open):
                results[index] = Turn(self.view.texts.over, (), 0.0, dict(result.standing))
        return results

    def _steps(
        self, calls: list[_Call], shown: list[int], begun: list[_Open | Exception]
    ) -> dict[int, Any]:
        """Take the steps of calls that have an answer; return results by number of the call."""
        active = [index for index in shown if calls[index].answer is not None]
        if not active:
            return {}
        slots = [
            opened.slot
            for opened in (begun[index] for index in active)
            if isinstance(opened, _Open)
        ]
        steps = self.core.step(slots, [calls[index].answer for index in active])
        return dict(zip(active, steps, strict=True))

    def _begin(self, calls: list[_Call]) -> list[_Open | Exception]:
        """Return the episode of each call; new ones begin in one call."""
        episodes: list[_Open | Exception] = []
        new: list[_Open] = []
        for call in calls:
            known = self._episodes.get(call.episode)
            if known is None:
                new.append(_Open(call.case, self._take_slot()))
                episodes.append(new[-1])
            elif known.case != call.case:
                episodes.append(
                    PolicyError(
                        f"episode {call.episode!r} plays case {known.case!r}, not {call.case!r}"
                    )
                )
            else:
                episodes.append(known)
        if new:
            slots = [opened.slot for opened in new if opened.slot is not None]
            try:
                infos = self.core.reset(slots, _no_draw, [opened.case for opened in new])
            except Exception:
                self._free += slots
                raise
            for begun, info in zip(new, infos, strict=True):
                begun.info = info
            for call, opened in zip(calls, episodes, strict=True):
                if isinstance(opened, _Open):
                    self._episodes[call.episode] = opened
        return episodes

    def _standing(self, opened: _Open) -> dict[str, Any]:
        assert opened.slot is not None
        episode = self.core.engine.episode(opened.slot)
        summary = EpisodeSummary.of(episode)
        return {
            **{name: getattr(summary, name) for name in _STANDING},
            "steps_left": episode.steps_left,
        }

    def _take_slot(self) -> int:
        if not self._free:
            self.core.engine.episodes.append(None)
            return len(self.core.engine.episodes) - 1
        return self._free.pop()

    def _free_slot(self, opened: _Open) -> None:
        """Give the slot of an episode back, masks and embedding with it."""
        assert opened.slot is not None
        self.core.engine.episodes[opened.slot] = None
        self._free.append(opened.slot)
        opened.slot = None

    def _forget(self) -> None:
        while self._dropped:
            opened = self._episodes.pop(self._dropped.popleft(), None)
            if opened is not None and opened.slot is not None:
                self._free_slot(opened)


def _no_draw(slot: int) -> Any:
    raise AssertionError("cases are named, never drawn")
