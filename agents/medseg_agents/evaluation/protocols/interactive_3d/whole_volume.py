"""Backbones that segment whole volumes: box and clicks go to the model as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg_agents.evaluation.protocols.interactive_3d.clicks import ClassClicks
from medseg_agents.evaluation.protocols.interactive_3d.segmenter import require_prompts
from medseg_gym.backbones.volumes import VolumeBackbone
from medseg_gym.cases.case import hash_pixels
from medseg_gym.cases.npz import VolumeBox
from medseg_gym.prompts import AddBox, AddPoint
from medseg_gym.prompts.volumes import SlicePrompt


class WholeVolume:
    """Segments each class of a volume from its box on the middle slice and its clicks, in order.

    Where classes overlap, the first one has the voxel: masks have no logits to compare.

    Args:
        backbone: Takes boxes and points.

    Raises:
        BackboneError: It does not.
    """

    def __init__(self, backbone: VolumeBackbone) -> None:
        require_prompts(backbone.name, backbone.prompt_kinds)
        self.backbone = backbone
        self.name = f"{backbone.name}, whole volumes"

    def segment(
        self,
        image: np.ndarray,
        spacing: tuple[float, float, float],
        boxes: Sequence[VolumeBox] | None,
        clicks: Sequence[ClassClicks],
        previous: np.ndarray | None,
    ) -> np.ndarray:
        """See `InteractiveSegmenter3D`."""
        del spacing, previous  # the model sees voxels; masks are made of all prompts
        labels = np.zeros(image.shape[:3], np.uint16)
        key = hash_pixels(image)
        for row, of_class in enumerate(clicks):
            box = None if boxes is None else boxes[row]
            prompts = _prompts(box, of_class, image.shape[1], image.shape[2])
            if prompts:
                mask = self.backbone.segment_volume(image, key, prompts)
                labels[mask & (labels == 0)] = row + 1
        return labels


def _prompts(
    box: VolumeBox | None, clicks: ClassClicks, height: int, width: int
) -> list[SlicePrompt]:
    prompts = []
    if box is not None:
        rectangle = AddBox(
            box.z_mid_x_min / width,
            box.z_mid_y_min / height,
            (box.z_mid_x_max + 1) / width,
            (box.z_mid_y_max + 1) / height,
        )
        prompts.append(SlicePrompt(box.z_mid, rectangle))
    places = {"fg": iter(clicks.foreground), "bg": iter(clicks.background)}
    for kind in clicks.order:
        if kind is not None:
            z, y, x = next(places[kind])
            point = AddPoint((x + 0.5) / width, (y + 0.5) / height, kind == "fg")
            prompts.append(SlicePrompt(z, point))
    return prompts
