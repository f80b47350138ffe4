"""Sizes of the chain from nothing to a vision-language policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from medseg_gym.envs.chat_options import ChatOptions


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Sizes of the stages, which `benchmarks.learning.tiny_chain` counts.

    Args:
        cases: Case spec.
        image_size: Side of the image that the model sees.
        overlay: How the mask is drawn on it.
        coordinates: Notation of places; of "pixel" the model has a token for each number.
        experts: Training cases that experts play.
        annotator: Who plays them.
        images: Images of stage 3; they follow those of stage 1.
        questions: Most targets of an image that stage 3 asks about, of all that are known in it; 0
            asks those of its cases.
        vision_steps: Optimiser steps of stage 4, of 16 images; 0 leaves it out.
        coarse_size: Side of the image in stage 4 until the rate falls, which costs less; 0 is
            `image_size`.
        vision_again: Optimiser steps by which stage 4 goes on with all pixels, its rate rising once
            more and falling from there to the end.
        reading_steps: Optimiser steps of stage 5, of 8 images; 0 leaves it out. It needs stage 4.
        first_steps: Optimiser steps of stage 6; 0 leaves it out.
        mixed_steps: Optimiser steps of stage 7.
        batch: Conversations a step.
        lr: Of AdamW.
        muon_lr: Of Muon.
        max_steps: Calls of an episode.
        test: Held-out cases of the table.
        num_envs: Slots, in stages 1 and 8.
        backbone: Who segments.
        seed: Of weights, order and experts.
        drawings: Folder of a chain with the same images, of another seed, which are taken where
            they are drawn already.
    """

    env: ClassVar[str] = "MedSeg-v0"  # that the experts play
    per_image: ClassVar[int] = 4  # consecutive cases that share an image
    shard: ClassVar[int] = 2000  # images of a file of first turns
    watched: ClassVar[int] = 128  # images of the val split on which stage 4 is watched

    cases: str = "phantoms:abdomen"
    image_size: int = 96
    overlay: Literal["fill", "outline", "none"] = "fill"
    coordinates: str = "grid1000"
    experts: int = 2400
    annotator: str = "hybrid?boxes=0.75"
    images: int = 10000
    questions: int = 0
    vision_steps: int = 0
    coarse_size: int = 0
    vision_again: int = 0
    reading_steps: int = 0
    first_steps: int = 2400
    mixed_steps: int = 900
    batch: int = 8
    lr: float = 2e-3
    muon_lr: float = 0.02
    max_steps: int = 5
    test: int = 1024
    num_envs: int = 64
    backbone: str = "pocket"
    seed: int = 0
    drawings: str = ""

    @property
    def chat(self) -> ChatOptions:
        """Return the view of the environment that the model gets."""
        return ChatOptions(
            image_size=self.image_size,
            overlay=self.overlay,
            coordinates=self.coordinates,
            texts="terse",
            max_steps=self.max_steps,
        )
