"""Messages between a rollout worker and a segmenter in another process.

Images are named by their content hash, prompts are plain numbers, logits are NumPy arrays: nothing
here depends on how a message travels (HTTP, Ray). `pack_row` and `unpack_row` are each other's
inverse; `ServedFacts` is what a client has to know of the backbone on the other side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from medseg_gym.backbones.batching.resize import resize_to_images
from medseg_gym.backbones.protocol import PROMPT_KINDS, Embedding, PromptRow
from medseg_gym.errors import BackboneError
from medseg_gym.prompts import AddBox, AddPoint


@dataclass(frozen=True, eq=False)
class RemoteEmbedding(Embedding):
    """An image whose features another process holds.

    Args:
        key: Content hash of the image, as `medseg_gym.cases.hash_pixels` gives it.
        image: (H, W, 3) uint8, sent again should the other side have dropped it.
    """

    key: str
    image: np.ndarray

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels kept here."""
        return int(self.image.nbytes)


class WireRow(NamedTuple):
    """A `PromptRow` without tensors.

    Attributes:
        image: Content hash.
        box: (x1, y1, x2, y2) as fractions, or None.
        points: (x, y, positive) each, x and y as fractions.
        mask_input: (h, w) float32 logits of an earlier decode, or None.
        multimask: As in `PromptRow`.
        text: As in `PromptRow`.
    """

    image: str
    box: tuple[float, float, float, float] | None = None
    points: tuple[tuple[float, float, bool], ...] = ()
    mask_input: np.ndarray | None = None
    multimask: bool = False
    text: str | None = None


def pack_row(row: PromptRow) -> WireRow:
    """Write a row whose embedding is a `RemoteEmbedding`.

    Raises:
        BackboneError: The embedding is a local one.
    """
    if not isinstance(row.embedding, RemoteEmbedding):
        raise BackboneError(
            "a remote backbone decodes only what it encoded itself; "
            f"the row's embedding is a {type(row.embedding).__name__}"
        )
    box = None if row.box is None else (row.box.x1, row.box.y1, row.box.x2, row.box.y2)
    points = tuple((point.x, point.y, point.positive) for point in row.points)
    mask = None if row.mask_input is None else row.mask_input.detach().cpu().numpy()
    return WireRow(row.embedding.key, box, points, mask, row.multimask, row.text)


def unpack_row(row: WireRow, embedding: Embedding, device: torch.device) -> PromptRow:
    """Read a row, given the image's embedding on `device`.

    Raises:
        PromptError: A coordinate is not a fraction in [0, 1].
    """
    mask = None
    if row.mask_input is not None:
        # A copy: arrays that were received are often read-only, which torch does not know.
        mask = torch.tensor(row.mask_input, dtype=torch.float32, device=device)
    return PromptRow(
        embedding,
        None if row.box is None else AddBox(*row.box),
        tuple(AddPoint(x, y, positive=bool(positive)) for x, y, positive in row.points),
        mask,
        row.multimask,
        row.text,
    )


@dataclass(frozen=True)
class ServedFacts:
    """Properties of the backbone on the other side, as a client knows them.

    Args:
        name: The backbone's own, as shown in tables.
        fingerprint: Changes with the weights, the precision and the input size.
        prompt_kinds: See `Backbone`.
        trained_kinds: See `Backbone`.
        takes_mask_input: See `Backbone`.
        logits_size: (h, w) of its low-resolution logits.
        framing: How logits become an image: "squashed" resizes them to it; "padded" resizes to
            the square input frame, cuts the padding off, and resizes the rest.
        frame_side: Side of that frame in pixels; 0 where it is not used.
    """

    name: str
    fingerprint: str
    prompt_kinds: frozenset[str]
    trained_kinds: frozenset[str]
    takes_mask_input: bool
    logits_size: tuple[int, int]
    framing: Literal["squashed", "padded"]
    frame_side: int

    def to_json(self) -> dict[str, Any]:
        """Plain values; sets become lists in the order of `PROMPT_KINDS`."""
        plain = asdict(self)
        for name in ("prompt_kinds", "trained_kinds"):
            plain[name] = [kind for kind in PROMPT_KINDS if kind in plain[name]]
        plain["logits_size"] = list(self.logits_size)
        return plain

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> ServedFacts:
        """Read what `to_json` wrote.

        Raises:
            BackboneError: Something is missing: what answered is no segmentation service.
        """
        try:
            height, width = plain["logits_size"]
            if plain["framing"] not in ("squashed", "padded"):
                raise ValueError(f"framing {plain['framing']!r}")
            if not (0 < height < 1 << 16 and 0 < width < 1 << 16):  # NaN fails this, too
                raise ValueError(f"logits_size {plain['logits_size']!r}")
            if not 0 <= plain["frame_side"] < 1 << 16:
                raise ValueError(f"frame_side {plain['frame_side']!r}")
            return cls(
                str(plain["name"]),
                str(plain["fingerprint"]),
                frozenset(plain["prompt_kinds"]),
                frozenset(plain["trained_kinds"]),
                bool(plain["takes_mask_input"]),
                (int(height), int(width)),
                plain["framing"],
                int(plain["frame_side"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BackboneError(
                f"these are not the facts of a served backbone ({error!r}): {str(plain)[:200]}"
            ) from error

    def to_image(self, logits: torch.Tensor, embeddings: Sequence[Embedding]) -> list[torch.Tensor]:
        """Resize logits, B x h x w, to B images H x W, as the served backbone's own does."""
        padded = self.framing == "padded"
        with torch.inference_mode():
            return resize_to_images(logits, embeddings, self.frame_side if padded else None)
