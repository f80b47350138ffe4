"""The View protocol: show episodes to an agent, and read its actions as prompts.

The engine plays; a view only translates. `ArrayView` shows arrays and reads integers, `ChatView`
shows a conversation and reads text; `EnvCore` and environments are the same for both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from gymnasium import spaces

from medseg_gym.episodes import Episode
from medseg_gym.errors import PromptError
from medseg_gym.prompts import Prompt

Observations = dict[str, Any]
"""Observations of n slots: a flat Dict whose values have n entries each."""


@dataclass(frozen=True)
class Reading:
    """An action as the view understood it.

    Args:
        prompt: What it asks for, or why it could not be read.
        info: What the view adds to the step's `info`.
    """

    prompt: Prompt | PromptError
    info: Mapping[str, Any] = field(default_factory=dict)


class View(Protocol):
    """Translator between episodes and an agent. The truth is never shown.

    Attributes:
        image_keys: Entries of an observation that are images of the case, in the order in which a
            model is shown them.
    """

    image_keys: ClassVar[tuple[str, ...]]

    @property
    def observation_space(self) -> spaces.Space:
        """Of one slot."""
        ...

    @property
    def action_space(self) -> spaces.Space:
        """Of one slot."""
        ...

    @property
    def tools(self) -> tuple[str, ...]:
        """Subset of `prompts.TOOLS` that the agent may use."""
        ...

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the view that decide the numbers of a run; JSON."""
        ...

    @property
    def mask_side(self) -> int | None:
        """Side of the square at which masks are shown; None if they are not."""
        ...

    def observe(self, episodes: Sequence[Episode]) -> Observations:
        """Observations of n episodes, fresh."""
        ...

    def row(self, observations: Observations, index: int) -> dict[str, Any]:
        """One slot's observation out of a batch."""
        ...

    def check_actions(self, actions: Any, count: int) -> Any:
        """Actions of all `count` slots; None in a slot sits the step out."""
        ...

    def idle(self, actions: Any, slots: Sequence[int]) -> Any:
        """Actions under which these slots cost as little as possible."""
        ...

    def read(self, actions: Any) -> list[Reading]:
        """Read what n actions ask for."""
        ...

    def keep(self, episodes: Sequence[Episode], actions: Any) -> None:
        """Remember actions that were taken, where the episode does not."""
        ...

    def carry_over(self, episode: Episode, forked: Episode) -> None:
        """Remember of a forked episode what is remembered of the one that it was forked from."""
        ...

    def start_info(self) -> dict[str, Any]:
        """Entries that the view adds to `info` at reset."""
        ...
