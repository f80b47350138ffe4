"""The two ends of a remote backbone: one that asks, one that answers.

`RemoteBackbone` is the `Backbone` of a rollout worker; a subclass says how messages travel.
`ServedBackbone` stands in front of the real one: it knows images by content hash and encodes each
of them once while its cache holds it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from medseg_gym.backbones.cache import embedding_cache
from medseg_gym.backbones.embedding_store import fingerprint
from medseg_gym.backbones.finite import check_finite_arrays
from medseg_gym.backbones.protocol import Backbone, Embedding, Prediction, PromptRow
from medseg_gym.backbones.remote.wire import (
    RemoteEmbedding,
    ServedFacts,
    WireRow,
    pack_row,
    unpack_row,
)
from medseg_gym.cases import hash_pixels
from medseg_gym.errors import BackboneError
from medseg_gym.prompts import AddBox, AddPoint


class RemoteBackbone(ABC):
    """A backbone in another process; results are those of the same backbone in this one.

    `encode` sends an image that the other side does not know yet; `decode` sends prompts and
    logits alone. Failures raise and never become an empty mask.

    Args:
        facts: Of the backbone on the other side.
        device: Where logits and masks live here.
    """

    def __init__(self, facts: ServedFacts, device: torch.device | str = "cpu") -> None:
        self.facts = facts
        self.name = facts.name
        self.device = torch.device(device)
        self.prompt_kinds = facts.prompt_kinds
        self.trained_kinds = facts.trained_kinds
        self.takes_mask_input = facts.takes_mask_input

    def __deepcopy__(self, file_cache: dict) -> RemoteBackbone:
        return self

    @abstractmethod
    def _encode(self, images: Mapping[str, np.ndarray]) -> Mapping[str, tuple[int, int]]:
        """Have images encoded.

        Args:
            images: (H, W, 3) uint8 by content hash.

        Returns:
            `Embedding.input_size` of each.
        """

    @abstractmethod
    def _decode(
        self, rows: Sequence[WireRow], images: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Have rows decoded.

        Args:
            rows: B rows.
            images: Pixels of every image they name, should the other side have dropped some.

        Returns:
            Logits (B, h, w) float32 and predicted IoU (B,) float32.
        """

    def encode(self, images: Sequence[np.ndarray]) -> list[Embedding]:
        """Encode images, each (H, W, 3) uint8, on the other side.

        Raises:
            BackboneError: The other side failed, or answered with something else than sizes.
        """
        keys = [hash_pixels(image) for image in images]
        by_key = dict(zip(keys, images, strict=True))
        sizes = self._encode(by_key)
        for key in by_key:
            if not _is_size(sizes.get(key)):
                raise BackboneError(
                    f"{self.name}: the other side gave {sizes.get(key)!r} for the input size of "
                    f"image {key}, not (height, width); both ends must be of the same version"
                )
        return [
            RemoteEmbedding((), (image.shape[0], image.shape[1]), sizes[key], key, image)
            for key, image in zip(keys, images, strict=True)
        ]

    def decode(self, rows: Sequence[PromptRow]) -> Prediction:
        """Predict one mask per row on the other side.

        Raises:
            BackboneError: A row was encoded elsewhere, the other side failed, or what it gave is
                not finite.
        """
        packed = [pack_row(row) for row in rows]
        images = {
            row.embedding.key: row.embedding.image
            for row in rows
            if isinstance(row.embedding, RemoteEmbedding)
        }
        logits, iou = self._decode(packed, images)
        expected = (len(rows), *self.facts.logits_size)
        if logits.shape != expected or iou.shape != (len(rows),):
            raise BackboneError(
                f"{self.name}: asked for logits {expected}, got {logits.shape} and predicted IoU "
                f"{iou.shape}; both ends must be of the same version"
            )
        check_finite_arrays(self.name, logits, iou)
        return Prediction(*(torch.tensor(a, device=self.device) for a in (logits, iou)))

    def to_image(self, logits: torch.Tensor, embeddings: Sequence[Embedding]) -> list[torch.Tensor]:
        """Resize logits, B x h x w, to B images H x W."""
        return self.facts.to_image(logits, embeddings)


class MissingImages(BackboneError):
    """Rows name images that the serving side does not hold (any more): send them again.

    Args:
        keys: Their content hashes.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = tuple(keys)
        super().__init__(
            f"{len(self.keys)} image(s) are not held here (any more), send their pixels: "
            + ", ".join(self.keys[:3])
        )

    def __reduce__(self) -> tuple:
        return MissingImages, (self.keys,)


class ServedBackbone:
    """The serving end: images by content hash, rows without tensors. Used by one thread at a time.

    Args:
        backbone: Who segments. It is tried out once, on small images of noise.

    Raises:
        BackboneError: Its `to_image` follows neither framing that `ServedFacts` knows.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.cache = embedding_cache(backbone)
        self.facts = find_facts(backbone)

    def encode(self, images: Mapping[str, np.ndarray]) -> dict[str, tuple[int, int]]:
        """Encode what is not cached; the `input_size` of each image.

        Args:
            images: (H, W, 3) uint8 by content hash; whoever received them computed the hashes.
        """
        return {key: embedding.input_size for key, embedding in self._embed(images).items()}

    def known(self, keys: Sequence[str]) -> dict[str, tuple[int, int]]:
        """The `input_size` of those images that are held; the others are left out."""
        return {key: embedding.input_size for key, embedding in self.cache.find(keys).items()}

    def decode(
        self, rows: Sequence[WireRow], images: Mapping[str, np.ndarray] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decode B rows in one call.

        Args:
            rows: B rows.
            images: Pixels of images that may not be held.

        Returns:
            Logits (B, h, w) float32 and predicted IoU (B,) float32.

        Raises:
            MissingImages: A row's image is neither held nor given.
            BackboneError: A row has the wrong size of mask input, or one that is not finite.
            NonFiniteError: What came out is not finite.
        """
        held = self._embed(images or {})
        held |= self.cache.find([row.image for row in rows if row.image not in held])
        missing = list(dict.fromkeys(row.image for row in rows if row.image not in held))
        if missing:
            raise MissingImages(missing)
        for i, row in enumerate(rows):
            if row.mask_input is not None and row.mask_input.shape != self.facts.logits_size:
                raise BackboneError(
                    f"row {i}: mask_input is {row.mask_input.shape}, {self.facts.name} takes "
                    f"{self.facts.logits_size} (height, width)"
                )
            if row.mask_input is not None and not np.isfinite(row.mask_input).all():
                raise BackboneError(f"row {i}: mask_input has values that are not finite")
        device = self.backbone.device
        with torch.inference_mode():
            prediction = self.backbone.decode([unpack_row(r, held[r.image], device) for r in rows])
        logits, iou = prediction.logits.cpu().numpy(), prediction.iou.cpu().numpy()
        check_finite_arrays(self.facts.name, logits, iou)
        return logits, iou

    def _embed(self, images: Mapping[str, np.ndarray]) -> dict[str, Embedding]:
        embeddings = self.cache.get(self.backbone, list(images.values()), list(images))
        return dict(zip(images, embeddings, strict=True))


def _is_size(size: object) -> bool:
    """Return True for a (height, width) in whole pixels, at least 1."""
    return (
        isinstance(size, (tuple, list))
        and len(size) == 2
        and all(isinstance(side, int) and side > 0 for side in size)
    )


def find_facts(backbone: Backbone) -> ServedFacts:
    """Try a backbone out on noise: size of its logits, and how it turns them into an image.

    Raises:
        BackboneError: Its `to_image` follows neither framing, so a client could not repeat it.
    """
    noise = np.random.default_rng(0)
    images = [noise.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((48, 64), (64, 40))]
    embeddings = backbone.encode(images)
    box = AddBox(0.2, 0.2, 0.8, 0.8) if "box" in backbone.prompt_kinds else None
    points = () if box else (AddPoint(0.5, 0.5),)
    with torch.inference_mode():
        made = backbone.decode([PromptRow(e, box, points) for e in embeddings]).logits
        logits = torch.as_tensor(
            noise.normal(size=tuple(made.shape)), dtype=torch.float32, device=made.device
        )
        expected = backbone.to_image(logits, embeddings)
    side = max(max(e.input_size) for e in embeddings)
    known = hasattr(backbone, "model") and hasattr(backbone, "dtype")
    for framing, frame_side in (("squashed", 0), ("padded", side)):
        facts = ServedFacts(
            backbone.name,
            fingerprint(backbone) if known else backbone.name,
            frozenset(backbone.prompt_kinds),
            frozenset(backbone.trained_kinds),
            bool(backbone.takes_mask_input),
            (int(made.shape[1]), int(made.shape[2])),
            framing,  # type: ignore[arg-type]
            frame_side,
        )
        resized = facts.to_image(logits, embeddings)
        if all(torch.equal(a, b) for a, b in zip(resized, expected, strict=True)):
            return facts
    raise BackboneError(
        f"backbone {backbone.name!r} cannot be served: its to_image neither squashes nor pads as "
        "medseg_gym.backbones.remote.wire.ServedFacts describes, so a client could not repeat it"
    )
