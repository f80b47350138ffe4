"""Baselines of volumes, which see no truth: a fixed box on one slice, any action, nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medseg_gym.errors import PolicyError
from medseg_gym.prompts import AddBox
from medseg_gym.prompts.volumes import VolumeCodec


class VolumeBaseline(ABC):
    """Names one row of integers per slot of `MedSegVolume-v0`, from observations alone.

    Args:
        codec: Of the view it plays through.
    """

    name = "baseline"
    env_id = "MedSegVolume-v0"
    sees_truth = False

    def __init__(self, codec: VolumeCodec) -> None:
        self.codec = codec
        self.turns: dict[int, int] = {}
        self.generators: dict[int, np.random.Generator] = {}

    def reset(self, slots: Sequence[int], generators: Sequence[np.random.Generator]) -> None:
        """Begin new episodes."""
        for slot, generator in zip(slots, generators, strict=True):
            self.turns[slot], self.generators[slot] = 0, generator

    def act(self, observations: Mapping[str, Any]) -> np.ndarray:
        """Choose actions, (n, 6) int64; slots that were never reset get zeros."""
        actions = np.zeros((len(observations["target"]), 6), np.int64)
        for slot in [slot for slot in range(len(actions)) if slot in self.turns]:
            shown = {name: values[slot] for name, values in observations.items()}
            actions[slot] = self.choose(slot, shown)
            self.turns[slot] += 1
        return actions

    def row(self, tool: str) -> np.ndarray:
        """A row of a tool, the rest of it 0.

        Raises:
            PolicyError: The view has no such tool.
        """
        if tool not in self.codec.tools:
            raise PolicyError(f"policy {self.name!r} needs the tool {tool!r} among tools=[...]")
        row = np.zeros(6, np.int64)
        row[0] = self.codec.tools.index(tool)
        return row

    @abstractmethod
    def choose(self, slot: int, observation: Mapping[str, Any]) -> np.ndarray:
        """The next row of a slot; `turns[slot]` were chosen before."""


class FixedBox(VolumeBaseline):
    """A box on one slice, propagate, stop; stops at once where it has no box for a target.

    Args:
        codec: Of the view it plays through.
    """

    def choose(self, slot: int, observation: Mapping[str, Any]) -> np.ndarray:
        """Box, propagate, stop."""
        turn, placed = self.turns[slot], self.place(observation)
        if turn == 0 and placed is not None:
            where, box = placed
            row = self.row("box")
            row[1] = min(int(where * self.codec.slices), self.codec.slices - 1)
            corners = np.array([box.x1, box.y1, box.x2, box.y2])
            row[2:] = np.clip((corners * self.codec.bins).astype(int), 0, self.codec.bins - 1)
            return row
        carries = turn == 1 and observation["overview_mask"].any()
        return self.row("propagate" if carries else "stop")

    @abstractmethod
    def place(self, observation: Mapping[str, Any]) -> tuple[float, AddBox] | None:
        """Return the place along the volume (0..1), and the box."""


class MiddleBox(FixedBox):
    """A box over the middle half of the slice in view, the middle one at first."""

    name = "middle-box"

    def place(self, observation: Mapping[str, Any]) -> tuple[float, AddBox]:
        """The slice in view, the middle half."""
        return float(observation["slice"][0]), AddBox(0.25, 0.25, 0.75, 0.75)


class RandomActions(VolumeBaseline):
    """Any action of the space, each as likely as the others."""

    name = "random"

    def choose(self, slot: int, observation: Mapping[str, Any]) -> np.ndarray:
        """Draw a row."""
        drawn: np.ndarray = self.generators[slot].integers(self.codec.space.nvec)
        return drawn


class StopAtOnce(VolumeBaseline):
    """Stops in the first step: what an agent must beat."""

    name = "stop"

    def choose(self, slot: int, observation: Mapping[str, Any]) -> np.ndarray:
        """Always stop."""
        return self.row("stop")
