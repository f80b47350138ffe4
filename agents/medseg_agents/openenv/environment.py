"""One session of the server: an episode at a time, on the segmenter that all share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from functools import cached_property
from typing import Any, ClassVar, TypeVar
from uuid import uuid4

import numpy as np
from gymnasium.utils.seeding import np_random
from openenv.core.env_server import Environment

from medseg_agents.chat_episodes import EpisodeWorker, Turn
from medseg_agents.llm.openai.messages import data_url
from medseg_agents.openenv.messages import MedSegAction, MedSegObservation, MedSegState
from medseg_gym.errors import EpisodeError, PolicyError

T = TypeVar("T")

_SHOWN = ("tool", "valid", "error", "repairs")
"""Entries of `info` that owe nothing to the truth: clients may show all of an observation."""


class MedSegEnvironment(Environment[MedSegAction, MedSegObservation, MedSegState]):
    """A chat environment as OpenEnv's servers call it.

    An error of a case or of the segmenter goes to the client as one; it never becomes a reward.

    Args:
        worker: Plays the episodes of all sessions.
        split: Name under which the cases are listed as tasks.
    """

    SUPPORTS_CONCURRENT_SESSIONS: ClassVar[bool] = True

    def __init__(self, worker: EpisodeWorker, split: str = "all") -> None:
        super().__init__()
        self._worker, self._split = worker, split
        self._generator: np.random.Generator | None = None
        self._episode = ""  # id in the worker, which no client chooses
        self._name: str | None = None
        self._answers = 0
        self._standing: dict[str, Any] = {}

    # an episode ---------------------------------------------------------------------------------
    async def reset_async(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        case: str | None = None,
        index: int | None = None,
        **kwargs: Any,
    ) -> MedSegObservation:
        """Begin an episode; one that runs is given up.

        Args:
            seed: Draws the case, the same as `MedSegChat-v0` draws with it.
            episode_id: Name in the state, for the client alone.
            case: Key of the case; None draws one.
            index: Number of the case among the tasks, instead of its key.
            **kwargs: `split`, if it is the one that is served.

        Raises:
            CaseError: There is no such case.
            PolicyError: Other arguments, or both a case and an index.
            MedSegError: The segmenter failed.
        """
        if kwargs.pop("split", self._split) != self._split:
            raise PolicyError(f"this server plays the split {self._split!r} alone")
        if kwargs:
            raise PolicyError(
                f"reset takes seed, episode_id, case, index and split, not {', '.join(kwargs)}"
            )
        if case is not None and index is not None:
            raise PolicyError("name a case or its index, not both")
        self.close()
        if seed is not None or self._generator is None:
            self._generator = np_random(seed)[0]
        if case is None:
            case = self._key(index)
        self._episode, self._name, self._answers = uuid4().hex, episode_id or uuid4().hex, 0
        try:
            turn = await self._worker.begin(self._episode, case)
        except Exception:
            self.close()
            raise
        observation = await self._observation(turn)
        observation.reward = None
        view = self._worker.view
        system = [part["text"] for message in view.system_messages for part in message["content"]]
        observation.system, observation.tools = "".join(system), view.tool_schemas
        return observation

    async def step_async(
        self, action: MedSegAction, timeout_s: float | None = None, **kwargs: Any
    ) -> MedSegObservation:
        """Take an answer.

        Args:
            action: Any; one that cannot be read costs a step and is explained to the model.
            timeout_s: Not used.
            **kwargs: Not used.

        Raises:
            EpisodeError: No episode runs in this session.
            MedSegError: The segmenter failed; the episode is as it was.
        """
        if not self._standing:
            raise EpisodeError("no episode runs in this session; reset it first")
        if self._standing["done"]:
            raise EpisodeError(
                f"the episode (case {self._standing['case']!r}) is over; reset the session first"
            )
        answer = action.turn(self._answers).played
        turn = await self._worker.step(self._episode, self._standing["case"], answer)
        self._answers += 1
        return await self._observation(turn)

    def reset(
        self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any
    ) -> MedSegObservation:
        """Begin an episode, see `reset_async`; for callers without an event loop."""
        return _wait(self.reset_async(seed, episode_id, **kwargs))

    def step(
        self, action: MedSegAction, timeout_s: float | None = None, **kwargs: Any
    ) -> MedSegObservation:
        """Take an answer, see `step_async`; for callers without an event loop."""
        return _wait(self.step_async(action, timeout_s, **kwargs))

    @property
    def state(self) -> MedSegState:
        """Standing of the episode."""
        if not self._standing:
            return MedSegState(episode_id=None)
        names = set(MedSegState.model_fields) & set(self._standing)
        return MedSegState(
            episode_id=self._name,
            step_count=self._standing["turns"],
            **{name: self._standing[name] for name in names},
        )

    def close(self) -> None:
        """Give the episode up, if one runs."""
        self._worker.drop(self._episode)
        self._standing = {}

    # tasks --------------------------------------------------------------------------------------
    def list_splits(self) -> list[str]:
        """Return the name of the split that is served."""
        return [self._split]

    def num_tasks(self, split: str) -> int:
        """Return the number of cases."""
        return len(self._keys) if split == self._split else 0

    def list_tasks(self, split: str) -> list[dict[str, Any]]:
        """Return all cases: `id` is the key, `index` its number."""
        return self.get_task_range(split)

    def get_task(self, split: str, index: int) -> dict[str, Any]:
        """Return one case.

        Raises:
            IndexError: There is none of that number.
        """
        if not 0 <= index < self.num_tasks(split):
            raise IndexError(f"{split!r} has no case {index}; there are {self.num_tasks(split)}")
        return {"id": self._keys[index], "index": index}

    def get_task_range(
        self, split: str, start: int | None = None, stop: int | None = None
    ) -> list[dict[str, Any]]:
        """Return the cases of a slice."""
        return [
            {"id": self._keys[index], "index": index}
            for index in range(self.num_tasks(split))[start:stop]
        ]

    @cached_property
    def _keys(self) -> Sequence[str]:
        return tuple(self._worker.core.source.keys)

    def _key(self, index: int | None) -> str:
        """Return the key of a number, or of a case that is drawn."""
        if index is None:
            assert self._generator is not None
            index = int(self._generator.integers(len(self._keys)))
        elif not 0 <= index < len(self._keys):
            raise PolicyError(f"index must be 0 to {len(self._keys) - 1}, got {index}")
        return self._keys[index]

    async def _observation(self, turn: Turn) -> MedSegObservation:
        self._standing = turn.standing
        # Writing PNG takes longer than anything else here, and other sessions wait meanwhile.
        images = await asyncio.to_thread(_data_urls, turn)
        return MedSegObservation(
            text=turn.text,
            images=images,
            reward=turn.reward,
            done=turn.standing["done"],
            metadata={name: _plain(turn.info[name]) for name in _SHOWN if name in turn.info},
        )


def _data_urls(turn: Turn) -> list[str]:
    return [data_url(np.asarray(image)) for image in turn.images]


def _plain(value: Any) -> Any:
    """Return a scalar of numpy as Python's own, which JSON has."""
    return value.item() if isinstance(value, np.generic) else value


def _wait(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)
