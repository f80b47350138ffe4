"""The control for a segmenter that answers from prompts alone: the same prompts, another image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from medseg_gym.annotators import ScriptedPolicy
from medseg_gym.backbones import Backbone, Embedding, Prediction, PromptRow
from medseg_gym.cases import Case
from medseg_gym.errors import MedSegError
from medseg_gym.policy import Played
from medseg_gym.prompts import ArrayCodec, Prompt, Stop


class OtherImage:
    """A backbone that is shown another image in the place of each one.

    Args:
        backbone: Who segments.
        cases: What is played. A case gets the image of the first case of the next group, scaled to
            its own size, so that two cases of one group never stand in for each other.

    Raises:
        MedSegError: All cases are of one group.
    """

    takes_mask_input: bool

    def __init__(self, backbone: Backbone, cases: Sequence[Case]) -> None:
        first = {case.group: case for case in reversed(cases)}
        groups = list(dict.fromkeys(case.group for case in cases))
        if len(groups) < 2:
            raise MedSegError(f"all {len(cases)} cases are of group {groups[0]!r}: no other image")
        partner = dict(zip(groups, [first[g] for g in (*groups[1:], groups[0])], strict=True))
        self.backbone = backbone
        self.name = f"{backbone.name}, other image"
        self.device = backbone.device
        self.prompt_kinds, self.trained_kinds = backbone.prompt_kinds, backbone.trained_kinds
        self.takes_mask_input = backbone.takes_mask_input
        self._others = {case.image.tobytes(): partner[case.group].image for case in cases}

    def encode(self, images: Sequence[np.ndarray]) -> list[Embedding]:
        """Encode the other images."""
        others = []
        for image in images:
            other = Image.fromarray(self._others[image.tobytes()])
            others.append(np.array(other.resize(image.shape[1::-1], Image.Resampling.BILINEAR)))
        return self.backbone.encode(others)

    def decode(self, rows: Sequence[PromptRow]) -> Prediction:
        """Decode as the backbone does."""
        return self.backbone.decode(rows)

    def to_image(self, logits: torch.Tensor, embeddings: Sequence[Embedding]) -> list[torch.Tensor]:
        """Resize as the backbone does."""
        return self.backbone.to_image(logits, embeddings)

    def __deepcopy__(self, file_cache: dict) -> OtherImage:
        return self


class SamePrompts(ScriptedPolicy):
    """Repeats the prompts of episodes played before, in their order.

    Args:
        codec: Of the view it plays through.
        played: Whose prompts; cases must come in the same order again.
    """

    name = "same prompts"

    def __init__(self, codec: ArrayCodec, played: Sequence[Played]) -> None:
        super().__init__(codec)
        self._waiting = [p.episode for p in played]
        self._prompts: dict[int, list[Prompt | None]] = {}

    def reset(self, slots: Sequence[int], generators: Sequence[np.random.Generator]) -> None:
        """Take the next episodes in line."""
        super().reset(slots, generators)
        for slot in slots:
            self._prompts[slot] = [step.prompt for step in self._waiting.pop(0).steps]

    def choose(self, slot: int) -> Prompt:
        """The prompt of this turn."""
        turn = self.turns[slot]
        prompts = self._prompts[slot]
        return (prompts[turn] if turn < len(prompts) else None) or Stop()
