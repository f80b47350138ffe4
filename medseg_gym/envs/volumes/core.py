"""VolumeCore: volumes, engine and view of n slots, which the volume environments are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from medseg_gym import backbones
from medseg_gym.backbones import embedding_cache
from medseg_gym.backbones.spilling import SpillFolder
from medseg_gym.cases.volume_source import VolumeSource, load_volumes
from medseg_gym.envs.core import SlotStates, draw_cases, settle_prompts
from medseg_gym.envs.forking import settle_in_child
from medseg_gym.envs.rendering import FRAME_SIDE, centred
from medseg_gym.envs.views.protocol import Observations
from medseg_gym.envs.volumes.drawing import draw_volume_episode
from medseg_gym.envs.volumes.options import VolumeOptions
from medseg_gym.envs.volumes.view import VolumeView
from medseg_gym.episodes import StepResult
from medseg_gym.episodes.volumes import VolumeEngine, VolumeEpisode, volume_info
from medseg_gym.errors import MedSegError
from medseg_gym.prompts.volumes import VOLUME_TOOLS, VolumeCodec


class VolumeCore(SlotStates):
    """Slots that play volumes; for environments what `EnvCore` is for those of images.

    Args:
        options: As given to the environment.
        num_slots: How many.
    """

    engine: VolumeEngine
    view: VolumeView

    def __init__(self, options: VolumeOptions, num_slots: int) -> None:
        settle_in_child(options.backbone, options.device)
        self.source: VolumeSource = load_volumes(options.cases, options.split)
        self.backbone = backbones.load(
            options.backbone,
            options.checkpoint,
            options.device,
            **dict(options.backbone_options or {}),
        )
        self.options = options = settle_prompts(self.backbone, options, VOLUME_TOOLS)
        self.engine = VolumeEngine(
            self.backbone,
            num_slots,
            options.reward,
            options.max_steps,
            options,
            options.propagation,
        )
        cache = embedding_cache(self.backbone)
        if options.spill_bytes < 0:
            raise MedSegError(f"spill_bytes must be at least 0, got {options.spill_bytes}")
        if options.spill_bytes and cache.spill is None:
            cache.spill = SpillFolder(options.spill_bytes)
        self.view: Any = self._make_view()

    def _make_view(self) -> Any:
        given = self.options.targets
        return VolumeView(self.source.targets if given is None else given, self.options)

    def episodes(self, slots: Sequence[int]) -> list[VolumeEpisode]:
        """Episodes in slots that were reset."""
        return [self.engine.episode(slot) for slot in slots]

    def reset(
        self,
        slots: Sequence[int],
        generator: Callable[[int], np.random.Generator],
        keys: Sequence[str | None],
    ) -> list[dict[str, Any]]:
        """Start episodes; arguments are those of `EnvCore.reset`.

        Returns:
            `info` per slot.
        """
        cases = draw_cases(
            self.source, slots, generator, keys, "segment such a scan with `medseg run SCAN`"
        )
        start = self.view.start_info()
        return [{**volume_info(one), **start} for one in self.engine.reset(slots, cases)]

    def step(self, slots: Sequence[int], actions: Any) -> list[StepResult]:
        """Take one action of the view per slot."""
        readings = self.view.read(actions, self.episodes(slots))
        return self.engine.step(slots, [reading.prompt for reading in readings])  # type: ignore[misc]

    def observe(self, slots: Sequence[int]) -> Observations:
        """Observations of slots, stacked."""
        observations: Observations = self.view.observe(self.episodes(slots))
        return observations

    def frame(self, slot: int) -> np.ndarray:
        """Draw a slot's slice in view as `rendering.FRAME_SHAPE` uint8, whatever its shape."""
        return centred(self.undistorted_frame(slot))

    def undistorted_frame(self, slot: int) -> np.ndarray:
        """Draw a slot's slice in view, (h, w, 3) uint8."""
        return draw_volume_episode(self.engine.episode(slot), FRAME_SIDE)


class VolumeEnvAttributes:
    """Public attributes of every environment over a `VolumeCore`."""

    core: VolumeCore

    @property
    def codec(self) -> VolumeCodec:
        """Translator between prompts and integer actions."""
        codec: VolumeCodec = self.core.view.codec
        return codec
