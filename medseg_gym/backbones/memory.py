"""The contract of backbones that carry masks through a stack of slices with a memory of their own.

A backbone says so by having the method `memory`; every other one is carried from slice to slice by
boxes and mask inputs.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from medseg_gym.backbones.protocol import Backbone, PromptRow


class SliceMemory(Protocol):
    """Memory of one target in one stack of slices.

    First every slice with prompts is stepped on, in any order; then each direction goes through the
    other slices, outward from where it starts. The two directions share the slices with prompts and
    nothing else, so they may be stepped in turns.
    """

    def step(self, index: int, row: PromptRow, reverse: bool = False) -> torch.Tensor:
        """Make the mask of a slice and remember it.

        Args:
            index: Of the slice.
            row: With prompts: these make the mask. Without any: the memory does.
            reverse: The direction goes towards lower indices; of no matter for prompts.

        Returns:
            Low-resolution logits, h x w float32, as `Prediction.logits` has them in each row. Where
            any number that decides on the mask is not finite, neither are they.

        Raises:
            BackboneError: No prompts, and no slice with prompts to remember.
        """
        ...


@runtime_checkable
class MemoryBackbone(Backbone, Protocol):
    """A backbone with a memory of slices."""

    def memory(self, depth: int) -> SliceMemory:
        """Start an empty memory for a stack of `depth` slices."""
        ...
