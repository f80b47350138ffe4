"""The Backbone contract: encode an image once, decode many prompt rows in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch

from medseg_gym.prompts import AddBox, AddPoint

PROMPT_KINDS = ("box", "point", "text")


@dataclass(frozen=True, eq=False)
class Embedding:
    """Encoding of one image by a backbone; shared by every episode on that image.

    Args:
        features: Tensors without a batch axis, on the backbone's device; their meaning is the
            family's own (for SAM one tensor, C x h x w).
        image_size: (H, W) of the image in pixels.
        input_size: (h, w) that the image takes up in the backbone's input frame, before padding.
    """

    features: tuple[torch.Tensor, ...]
    image_size: tuple[int, int]
    input_size: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Bytes that the features hold."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.features)


@dataclass(frozen=True, eq=False)
class PromptRow:
    """One mask to predict: an image and everything that points at the target.

    Args:
        embedding: The image.
        box: At most one box.
        points: Clicks in the order they were made.
        mask_input: Low-resolution logits of an earlier decode, h x w as `Prediction.logits` gives
            them, or None.
        multimask: Predict three masks and keep the one with the best predicted IoU.
        text: What to segment, in words; for backbones whose `prompt_kinds` hold "text".
    """

    embedding: Embedding
    box: AddBox | None = None
    points: tuple[AddPoint, ...] = ()
    mask_input: torch.Tensor | None = None
    multimask: bool = False
    text: str | None = None


class Prediction(NamedTuple):
    """Low-resolution logits, B x h x w float32, and predicted IoU, B float32, on the device."""

    logits: torch.Tensor
    iou: torch.Tensor


@runtime_checkable
class Backbone(Protocol):
    """A promptable segmenter.

    Row i of every result depends on input i alone, whatever else is in the batch.

    Attributes:
        name: As shown in tables.
        device: Where tensors live.
        prompt_kinds: Kinds that `decode` accepts, out of `PROMPT_KINDS`.
        trained_kinds: Kinds that the weights were trained on. Results with others are labelled
            in every table.
        takes_mask_input: False where the decoder was not trained to be fed its own logits; the
            engine then leaves `mask_input` out.
    """

    name: str
    device: torch.device
    prompt_kinds: frozenset[str]
    trained_kinds: frozenset[str]
    takes_mask_input: bool

    def encode(self, images: Sequence[np.ndarray]) -> list[Embedding]:
        """Encode images, each (H, W, 3) uint8 RGB; sizes may differ."""
        ...

    def decode(self, rows: Sequence[PromptRow]) -> Prediction:
        """Predict one mask per row.

        Every row has a box or a point, or, where `prompt_kinds` hold "text", at least a text.
        """
        ...

    def to_image(self, logits: torch.Tensor, embeddings: Sequence[Embedding]) -> list[torch.Tensor]:
        """Resize logits, B x h x w, to B images H x W; each family undoes its own padding."""
        ...


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """Turn "auto" into CUDA where there is one, else the CPU.

    Raises:
        BackboneError: The named device does not exist on this machine.
    """
    from medseg_gym.errors import BackboneError

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise BackboneError(
            f"device {str(device)!r} cannot be used: {str(error).splitlines()[0][:200]}; "
            'use device="cpu", or "auto" to let the suite choose'
        ) from None
    return chosen
