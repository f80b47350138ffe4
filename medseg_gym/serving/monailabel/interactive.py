"""The backbone as an interactive model: prompts on slices, then the slices between and beyond."""

from __future__ import annotations

import numpy as np

from medseg_gym.backbones.cache import embedding_cache
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.episodes.volumes import PropagationOptions, VolumeEngine
from medseg_gym.prompts import AddBox
from medseg_gym.prompts.volumes import Propagate
from medseg_gym.serving.batching.segmenter import Segmenter
from medseg_gym.serving.batching.shared_segmenter import SharedSegmenter
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.monailabel.parameters import Placed

PIXEL_BYTES = 1 << 29
"""Pixels kept for slices whose embedding the service may have dropped."""


class InteractiveModel:
    """Makes masks of all prompts of a request; nothing of an earlier request is remembered.

    Args:
        segmenter: The service's; decoder calls are shared with all its clients.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self._backbone = SharedSegmenter(segmenter)
        embedding_cache(self._backbone).max_bytes = PIXEL_BYTES
        self._options = segmenter.engine.options

    def segment(self, case: VolumeCase, placed: Placed, flat: bool) -> tuple[np.ndarray, str]:
        """Make the mask of a volume.

        Args:
            case: The volume.
            placed: Prompts, at least one that shows the target.
            flat: Segment the slices with prompts alone.

        Returns:
            (D, H, W) bool, and why nothing was carried to other slices ("" where it was).

        Raises:
            ServiceError: The backbone takes no boxes or no clicks.
            BackboneError: The backbone failed.
        """
        kinds = self._backbone.prompt_kinds
        for one in placed.prompts:
            kind = "box" if isinstance(one.prompt, AddBox) else "point"
            if kind not in kinds:
                raise ServiceError(
                    f"backbone {self._backbone.name!r} takes no {kind}; it takes "
                    f"{' and '.join(sorted(kinds))}"
                )
        engine = VolumeEngine(
            self._backbone,
            max_steps=len(placed.prompts) + 1,
            options=self._options,
            # The service's segmenter shows no memory of slices.
            propagation=PropagationOptions(memory=False),
        )
        (episode,) = engine.reset([0], [case])
        for prompt in placed.prompts:
            engine.step([0], [prompt])
        note = "" if flat else str(engine.step([0], [Propagate()])[0].info["error"])
        mask = episode.mask()
        mask[: placed.first] = False
        mask[placed.last + 1 :] = False
        return mask, note
