"""A small fully convolutional policy for the array view, shared by SB3 and RLlib.

Image, mask and prompts go through a U-net that is told the target at every level; its finest level
gives a map of logits per place (see `PromptDistribution`), its coarsest the tool and the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import torch
from gymnasium import spaces
from torch import nn
from torch.nn import functional

from medseg_agents.arrays.blocks import Block, level_widths, make_stem, place_grid
from medseg_agents.arrays.config import ArraySettings, NetworkSize
from medseg_agents.arrays.distribution import PromptDistribution, count_maps, tool_names
from medseg_agents.arrays.localizer.network import PLANES, Localizer, outline_planes
from medseg_gym.errors import PolicyError
from medseg_gym.prompts import TOOLS

_PLANES = {"image": 3, "mask": 1, "prompts": 3}


@dataclass(frozen=True)
class NetworkConfig(NetworkSize):
    """Size and start of the network, and the tools that it chooses among."""

    tools: tuple[str, ...] | None = None
    """Of the view, any order; None means all six."""

    @classmethod
    def of(cls, settings: ArraySettings) -> NetworkConfig:
        """Of the network that a run trains."""
        size = {one.name: getattr(settings, one.name) for one in fields(NetworkSize)}
        return cls(**size, tools=settings.tools)


class PromptNetwork(nn.Module):
    """Observation of the array view -> logits of a `PromptDistribution`, and the state's value.

    Args:
        observation_space: Of one slot, see `MedSegEnv`; its side must be a multiple of the stride
            of the coarsest level, `patch` * 2^(`levels` - 1).
        action_space: Of one slot.
        config: See there.

    Raises:
        PolicyError: Another space, tools that do not fit it, or a side that is no such multiple.
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.MultiDiscrete,
        config: NetworkConfig | None = None,
    ) -> None:
        super().__init__()
        config = config or NetworkConfig()
        self.tools = tool_names(TOOLS if config.tools is None else config.tools)
        self.side, targets = _check(
            observation_space, action_space, self.tools, config.patch * 2 ** (config.levels - 1)
        )
        self.bins = int(action_space.nvec[1])
        self.cells = min(self.side // 2, self.bins)
        wide = level_widths(config.width, config.levels)
        self.width, coarse = config.width, wide[-1]
        self.condition = nn.Sequential(
            nn.Linear(targets + 1, coarse), nn.SiLU(), nn.Linear(coarse, coarse), nn.SiLU()
        )
        self.targets = targets
        planes = sum(_PLANES.values()) + 2
        self.stem = make_stem(planes, wide[0], config.patch)
        self.levels = config.levels
        for level, (fine, coarser) in enumerate(pairwise(wide), start=1):
            self.add_module(f"down{level}", Block(fine, coarser, coarse, stride=2))
        self.deep = Block(coarse, coarse, coarse)
        for level, (fine, coarser) in enumerate(reversed(list(pairwise(wide))), start=1):
            self.add_module(f"up{level}", Block(coarser + fine, fine, coarse))
        # Several places lie in one patch: their logits are channels first.
        self.split = max(1, config.patch // 2)
        self.localizer: Localizer | None = None
        if config.localizer:
            sizes = config.patch, config.localizer, config.levels
            self.localizer = Localizer(self.side, targets, *sizes)
            self.outlook = nn.Conv2d(PLANES * self.split**2, wide[0], 1)
        self.places = nn.Conv2d(wide[0], count_maps(self.tools) * self.split**2, 1)
        self.trunk = nn.Sequential(nn.Linear(3 * coarse, 2 * coarse), nn.SiLU())
        self.tool = nn.Linear(2 * coarse, len(self.tools))
        self.value = nn.Linear(2 * coarse, 1)
        self.register_buffer("grid", place_grid(self.side), persistent=False)
        for head in (self.places, self.tool):
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]
        if "stop" in self.tools:
            with torch.no_grad():
                self.tool.bias[self.tools.index("stop")] = config.stop_bias

    @property
    def num_inputs(self) -> int:
        """Length of a row of distribution inputs."""
        return len(self.tools) + count_maps(self.tools) * self.cells**2

    def forward(self, observation: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Read a batch of observations.

        Args:
            observation: As the environment gives it, as tensors; the planes (uint8) channels first
                or last, the target as an index or one-hot.

        Returns:
            Distribution inputs, B x `num_inputs`, and values, (B,).
        """
        inputs, values, _ = self.look(observation)
        return inputs, values

    def look(
        self, observation: Mapping[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Read a batch of observations, for a trainer that learns from more than the actions.

        Args:
            observation: As for `forward`.

        Returns:
            What `forward` returns, and the features that the place maps are made of,
            B x `width` x h x w, h = w = side / `patch`.
        """
        target = observation["target"]
        batch = len(target)
        if self.targets == 1:  # nothing to tell apart, whichever of the two it is
            target = torch.ones(batch, 1, device=target.device)
        elif target.dim() < 2 or target.shape[-1] == 1:  # an index; else one-hot
            target = functional.one_hot(target.reshape(batch).long(), self.targets)
        left = observation["steps_left"].reshape(batch, 1).float()
        condition = self.condition(torch.cat([target.reshape(batch, -1).float(), left], 1))

        seen = [functional.silu(self._see(observation) + self._outlook(observation, target))]
        for level in range(1, self.levels):
            seen.append(self.get_submodule(f"down{level}")(seen[-1], condition))
        coarse = hidden = self.deep(seen.pop(), condition)
        for level in range(1, self.levels):
            hidden = functional.interpolate(hidden, scale_factor=2)
            hidden = torch.cat([hidden, seen.pop()], 1)
            hidden = self.get_submodule(f"up{level}")(hidden, condition)
        maps = functional.pixel_shuffle(self.places(hidden), self.split)
        if self.cells < maps.shape[-1]:
            maps = functional.adaptive_avg_pool2d(maps, self.cells)
        summary = torch.cat([coarse.mean((2, 3)), coarse.amax((2, 3)), condition], 1)
        trunk = self.trunk(summary)
        inputs = torch.cat([self.tool(trunk), maps.flatten(1)], 1)
        return inputs, self.value(trunk)[:, 0], hidden

    def _outlook(
        self, observation: Mapping[str, Any], target: torch.Tensor
    ) -> torch.Tensor | float:
        """Return features of the localizer's outline at the stem's places; 0 where there is none.

        It learns from outlines alone (see `medseg_agents.arrays.localizer`): gradients of actions,
        few and noisy beside those, do not reach it.
        """
        if self.localizer is None:
            return 0.0
        with torch.no_grad():
            image = _channels_first(observation["image"], _PLANES["image"])
            outline = self.localizer(image, target.reshape(len(target), -1).argmax(1)[:, None])
            planes = functional.pixel_unshuffle(outline_planes(outline[:, 0].float()), self.split)
        seen: torch.Tensor = self.outlook(planes)
        return seen

    def _see(self, observation: Mapping[str, Any]) -> torch.Tensor:
        """The stem's convolution of all planes and the places' coordinates.

        Part by part, which is the same and spares an interleaved copy of all of them in float32,
        dearer than the convolution itself.
        """
        weight, at = self.stem.weight, sum(_PLANES.values())
        options = {"stride": self.stem.stride, "padding": self.stem.padding}
        grid: Any = self.grid
        seen: torch.Tensor = functional.conv2d(grid, weight[:, at:], self.stem.bias, **options)  # type: ignore
        lower = torch.is_autocast_enabled(weight.device.type)
        dtype = torch.get_autocast_dtype(weight.device.type) if lower else torch.float32
        at = 0
        for name, channels in _PLANES.items():
            plane = _channels_first(observation[name], channels).to(dtype).mul(1 / 127.5).sub_(1)
            part = weight[:, at : at + channels]
            seen = seen + functional.conv2d(plane, part, None, **options)  # type: ignore
            at += channels
        return seen

    def distribution(self, inputs: torch.Tensor) -> PromptDistribution:
        """The distribution that rows of inputs stand for."""
        return PromptDistribution(inputs, self.tools, self.bins, self.cells)


def _channels_first(plane: torch.Tensor, channels: int) -> torch.Tensor:
    return plane if plane.shape[1] == channels else plane.permute(0, 3, 1, 2)


def _check(
    observation_space: spaces.Dict,
    action_space: spaces.MultiDiscrete,
    tools: tuple[str, ...],
    stride: int,
) -> tuple[int, int]:
    """Side of the observation and number of targets, the unknown one included."""
    if not isinstance(observation_space, spaces.Dict) or "image" not in observation_space.spaces:
        raise PolicyError(f"this network reads MedSeg-v0's array view, not {observation_space}")
    shape = observation_space["image"].shape
    assert shape is not None
    side = max(shape)
    if side % stride:
        raise PolicyError(
            f"image_size must be a multiple of {stride} (patch * 2^(levels - 1)), got {side}"
        )
    if not isinstance(action_space, spaces.MultiDiscrete) or len(action_space.nvec) != 5:
        raise PolicyError(f"this network plays MedSeg-v0's array actions, not {action_space}")
    if int(action_space.nvec[0]) != len(tools):
        raise PolicyError(
            f"the action space has {int(action_space.nvec[0])} tools, the network {tools}; give it "
            "the environment's tools=[...]"
        )
    if not count_maps(tools):
        raise PolicyError(f"none of the tools {tools} makes a mask; add a click or a box")
    for key, channels in _PLANES.items():
        shape_there = observation_space[key].shape
        if shape_there not in ((side, side, channels), (channels, side, side)):
            raise PolicyError(
                f"this network reads {key!r} as {side} x {side} with {channels} channels, not "
                f"{shape_there}; stacked frames are for networks of your own, or SB3's "
                "MultiInputPolicy"
            )
    target = observation_space["target"]
    if isinstance(target, spaces.Discrete):
        return side, int(target.n)
    assert isinstance(target, spaces.Box) and len(target.shape) == 1  # one-hot
    return side, int(target.shape[0])
