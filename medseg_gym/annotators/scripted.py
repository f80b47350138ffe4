"""Policies that follow a rule, slot by slot: shared plumbing and the truth-free baselines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from medseg_gym.envs.views.array import Observations
from medseg_gym.episodes import Episode, EpisodeEngine
from medseg_gym.errors import PolicyError
from medseg_gym.prompts import AddBox, ArrayCodec, Prompt, Stop


class ScriptedPolicy(ABC):
    """A policy that names one prompt per slot.

    Args:
        codec: Of the view it plays through.

    Attributes:
        needs: Tools that it cannot do without.

    Raises:
        PolicyError: The view lacks one of them.
    """

    name = "scripted"
    sees_truth = False
    needs: tuple[str, ...] = ()

    def __init__(self, codec: ArrayCodec) -> None:
        lacking = [tool for tool in self.needs if tool not in codec.tools]
        if lacking:
            raise PolicyError(
                f"policy {self.name!r} needs the tools {lacking}, and is given {[*codec.tools]}, "
                "those that were asked for or that the backbone can answer; give another policy, "
                "other tools, or another backbone"
            )
        self.codec = codec
        self.turns: dict[int, int] = {}
        self.generators: dict[int, np.random.Generator] = {}

    def reset(self, slots: Sequence[int], generators: Sequence[np.random.Generator]) -> None:
        """Begin new episodes."""
        for slot, generator in zip(slots, generators, strict=True):
            self.turns[slot] = 0
            self.generators[slot] = generator

    def act(self, observations: Observations) -> np.ndarray:
        """Choose actions, (n, 5) int64; slots that were never reset get zeros."""
        actions = np.zeros((len(observations["target"]), 5), np.int64)
        for slot in [slot for slot in range(len(actions)) if slot in self.turns]:
            actions[slot] = self.codec.encode(self.choose(slot))
            self.turns[slot] += 1
        return actions

    def name_with(self, **options: tuple[float, float]) -> str:
        """Return the spec that `make` reads: options (value, default) that are not the default."""
        changed = [f"{key}={value:g}" for key, (value, usual) in options.items() if value != usual]
        return self.name + ("&" if "?" in self.name else "?") * bool(changed) + "&".join(changed)

    @abstractmethod
    def choose(self, slot: int) -> Prompt:
        """The next prompt of a slot; `turns[slot]` prompts were made before."""


class StopAtOnce(ScriptedPolicy):
    """Stops in the first step: what an agent must beat."""

    name = "stop"
    needs = ("stop",)

    def choose(self, slot: int) -> Prompt:
        """Always stop."""
        return Stop()


class CentreBox(ScriptedPolicy):
    """A box over the middle half of the image, then stop."""

    name = "centre-box"
    needs = ("box", "stop")

    def choose(self, slot: int) -> Prompt:
        """Box, then stop."""
        return Stop() if self.turns[slot] else AddBox(0.25, 0.25, 0.75, 0.75)


class RandomActions(ScriptedPolicy):
    """Uniform over the action space."""

    name = "random"

    def choose(self, slot: int) -> Prompt:
        """Draw from the slot's generator."""
        row = self.generators[slot].integers(self.codec.space.nvec)
        return self.codec.decode(row[None])[0]


class OracleScript(ScriptedPolicy):
    """A scripted policy that is shown the truth.

    Subclasses choose for all open slots at once in `choose_all`.
    """

    sees_truth = True

    def use_engine(self, engine: EpisodeEngine) -> None:
        """Take the engine in which the episodes run; experts look ahead with it, others do not."""

    def act(  # type: ignore[override]
        self, observations: Observations, episodes: Sequence[Episode]
    ) -> np.ndarray:
        """Choose actions, (n, 5) int64, for every slot whose episode is not over."""
        actions = np.zeros((len(episodes), 5), np.int64)
        open_slots = [i for i, e in enumerate(episodes) if not e.done and i in self.turns]
        prompts = self.choose_all(open_slots, [episodes[i] for i in open_slots])
        for slot, prompt in zip(open_slots, prompts, strict=True):
            actions[slot] = self.codec.encode(prompt)
            self.turns[slot] += 1
        return actions

    def accepts(self, episode: Episode) -> bool:
        """Return True if a finished episode is worth keeping as a trajectory to learn from."""
        return True

    def choose(self, slot: int) -> Prompt:
        """Not used: oracles choose with the episodes at hand."""
        raise NotImplementedError

    @abstractmethod
    def choose_all(self, slots: Sequence[int], episodes: Sequence[Episode]) -> list[Prompt]:
        """The next prompt of every open slot."""
