"""Groups that branch from one mid-episode state, so that credit goes to the turns behind it.

A *trunk* is played from the start of a group's case to a turn that is drawn for the group. Every
episode of the group goes on from there: with the environment's state and the conversation of the
trunk, the engine's keys and values of it included, and with draws of its own. What the trunk said
is prompt to all of them; it is read once, and nobody learns from it.

The trunk is none of the group's episodes. It would be one of them only where it had reached its
turn; one that ended earlier says what came after each of its turns, and so is no draw of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medseg_agents.llm.engine import Conversation
from medseg_gym.envs.core import SlotState


@dataclass(frozen=True)
class BranchPoint:
    """The state that all episodes of a group begin with.

    Args:
        turn: The first turn that is theirs, from 0.
        conversation: So far; its newest user turn waits for a completion.
        shown: Observation of that turn.
        before: Images, H x W x 3 uint8, of the turns before, in order.
        terms: Each term of the reward, summed over the turns before.
        state: Of the environment; None where nothing branches.
    """

    turn: int
    conversation: Conversation
    shown: dict[str, Any]
    before: tuple[np.ndarray, ...] = ()
    terms: Counter[str] = field(default_factory=Counter)
    state: SlotState | None = None


class Trunk:
    """One group's trunk while it is played.

    Args:
        start: Where it begins.
        drawn: Generator of the turn; the turn is drawn uniformly from all that an episode may have.
        max_turns: Of an episode.
        image_keys: Entries of an observation that are the images of a turn, in order.
    """

    def __init__(
        self,
        start: BranchPoint,
        drawn: np.random.Generator,
        max_turns: int,
        image_keys: Sequence[str] = ("image",),
    ) -> None:
        self._drawn, self._image_keys = drawn, tuple(image_keys)
        self.points = [start]
        self.wanted = int(drawn.integers(max_turns))
        self.ended = False

    @property
    def newest(self) -> BranchPoint:
        """The furthest point so far."""
        return self.points[-1]

    @property
    def grows(self) -> bool:
        """Return whether there is a turn to play before the group branches."""
        return not self.ended and self.newest.turn < self.wanted

    def conversation(self) -> Conversation:
        """Return the trunk's conversation, to be played a turn further."""
        newest = self.newest.conversation
        return newest.fork(newest.generator)

    def add(
        self,
        conversation: Conversation,
        shown: dict[str, Any],
        terms: Mapping[str, float],
        state: SlotState,
    ) -> None:
        """Add the point that a turn led to.

        Args:
            conversation: With the turn's completion.
            shown: Observation afterwards.
            terms: Of the turn's reward.
            state: Of the environment afterwards.
        """
        conversation.show(shown["text"], *(shown[key] for key in self._image_keys))
        newest = self.newest
        total: Counter[str] = Counter(newest.terms)
        total.update(terms)
        before = (*newest.before, *(newest.shown[key] for key in self._image_keys))
        self.points.append(BranchPoint(newest.turn + 1, conversation, shown, before, total, state))

    def branch_point(self) -> BranchPoint:
        """Return where the group branches.

        Of a trunk that ended before the turn that was drawn, one of its own turns is drawn instead.
        """
        if self.ended:
            return self.points[int(self._drawn.integers(len(self.points)))]
        return self.newest
