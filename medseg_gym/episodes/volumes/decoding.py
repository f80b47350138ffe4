"""Masks of slices, of any number of volumes, in one decode."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from medseg_gym.backbones.batching.transfer import to_device
from medseg_gym.backbones.cache import embedding_cache
from medseg_gym.backbones.finite import NonFiniteError
from medseg_gym.backbones.memory import SliceMemory
from medseg_gym.backbones.protocol import Backbone, Embedding, Prediction, PromptRow
from medseg_gym.cases.volume_case import VolumeCase
from medseg_gym.episodes.decode_options import DecodeOptions
from medseg_gym.episodes.masks import MeasuredMask, check_prediction, measure_masks
from medseg_gym.episodes.volumes.episode import SliceState
from medseg_gym.prompts import AddBox, AddPoint

Place = tuple[VolumeCase, int]
"""A slice of a volume."""


@dataclass(frozen=True, eq=False)
class SliceRequest:
    """Mask wanted of a slice.

    Args:
        case: The volume.
        index: The slice.
        box: Box of the slice's own.
        points: Clicks of the slice's own.
        carried: Box made of a neighbour's mask; counts where there is no `box`.
        logits: Low-resolution logits to start from: those of the slice, or of its neighbour.
        ahead: Slices that are likely to be wanted next, the likeliest first.
        memory: The backbone's own memory of the volume, which makes the mask instead of a decode.
        reverse: The memory comes from higher indices.
        corrects: See `SliceState`.
    """

    case: VolumeCase
    index: int
    box: AddBox | None = None
    points: tuple[AddPoint, ...] = ()
    carried: AddBox | None = None
    logits: torch.Tensor | None = None
    ahead: Sequence[int] = ()
    memory: SliceMemory | None = None
    reverse: bool = False
    corrects: bool = False


class SliceDecoder:
    """Turns requests into states of slices.

    Embeddings come from the backbone's cache, which every engine shares: each slice is encoded when
    it is first wanted, and again only if the cache has dropped it and has no folder to keep it in
    (`backbone_options={"cache_bytes": ..., "store": FOLDER}`).

    Args:
        backbone: The segmenter.
        options: How prompts become decoder rows; of `prompt_memory` only "all" is known here.
    """

    def __init__(self, backbone: Backbone, options: DecodeOptions) -> None:
        self.backbone = backbone
        self.options = options
        self.cache = embedding_cache(backbone)

    def decode(self, requests: Sequence[SliceRequest]) -> list[SliceState]:
        """Make all masks that are wanted, in one `Backbone.decode` but for those from a memory.

        Raises:
            BackboneError: The backbone's numbers are not finite, naming volume and slice.
        """
        if not requests:
            return []
        embeddings = self._embed(requests)
        rows = [self._row(one, made) for one, made in zip(requests, embeddings, strict=True)]
        truths = [
            to_device(one.case.mask[one.index].copy(), self.backbone.device) for one in requests
        ]
        try:
            with torch.inference_mode():
                prediction = self._predict(requests, rows)
                images = self.backbone.to_image(prediction.logits, embeddings)
                measured = measure_masks(
                    images, truths, self.backbone.name, prediction, fetch=lambda masks: masks
                )
        except NonFiniteError as error:
            names = [f"slice {one.index} of volume {one.case.key!r}" for one in requests]
            raise error.about(names) from None
        return [
            _state(one, mask, logits, row.mask_input)
            for one, mask, logits, row in zip(
                requests, measured, prediction.logits, rows, strict=True
            )
        ]

    def prepare(self, case: VolumeCase, index: int) -> None:
        """Encode a slice unless it is encoded, so that its first prompt need not wait for that.

        Raises:
            BackboneError: The embedding is not finite, naming volume and slice.
        """
        self._embed([SliceRequest(case, index)])

    def _predict(self, requests: Sequence[SliceRequest], rows: Sequence[PromptRow]) -> Prediction:
        """Low-resolution logits of every row; a memory predicts no IoU, which is 0 there."""
        decoded = [i for i, one in enumerate(requests) if one.memory is None]
        made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        if decoded:
            try:
                prediction = self.backbone.decode([rows[i] for i in decoded])
            except NonFiniteError as error:
                places = [decoded[row] for row in error.rows]
                raise NonFiniteError(error.backbone, error.what, places) from None
            check_prediction(self.backbone.name, prediction, len(decoded))
            if len(decoded) == len(rows):
                return prediction
            made.update(zip(decoded, zip(*prediction, strict=True), strict=True))
        for i, (one, row) in enumerate(zip(requests, rows, strict=True)):
            if one.memory is not None:
                logits = one.memory.step(one.index, row, one.reverse)
                made[i] = logits, logits.new_zeros(())
        pairs = [made[i] for i in range(len(rows))]
        return Prediction(
            torch.stack([low for low, _ in pairs]), torch.stack([iou for _, iou in pairs])
        )

    def image_logits(
        self, case: VolumeCase, index: int, state: SliceState | None
    ) -> np.ndarray | None:
        """Return absolute logits behind a slice's mask, (H, W) float32; None without any.

        Args:
            case: The volume.
            index: The slice.
            state: Of the slice.
        """
        if state is None or state.logits is None:
            return None
        embeddings = self.cache.get(self.backbone, [case.rgb(index)], [_key((case, index))])
        with torch.inference_mode():
            (logits,) = self.backbone.to_image(state.logits[None], embeddings)
        distances: np.ndarray = logits.abs().float().cpu().numpy()
        return distances

    def _embed(self, requests: Sequence[SliceRequest]) -> list[Embedding]:
        wanted: list[Place] = [(one.case, one.index) for one in requests]
        places = dict(zip(map(_key, wanted), wanted, strict=True))
        missing = sum(key not in self.cache for key in places)
        room = -missing % getattr(self.backbone, "encode_batch", 1)
        # The last of the encoder passes that are to be made is filled with slices that come next.
        for place in _in_turns(requests) if missing else ():
            if room <= 0:
                break
            if (key := _key(place)) not in places and key not in self.cache:
                places[key] = place
                room -= 1
        try:
            made = self.cache.get(
                self.backbone, [case.rgb(index) for case, index in places.values()], list(places)
            )
        except NonFiniteError as error:
            keys = list(places)
            ill = [i for i, key in enumerate(keys) if f"image {key}" in error.names]
            names = [
                f"slice {index} of volume {case.key!r}"
                for case, index in (places[keys[i]] for i in ill)
            ]
            raise NonFiniteError(error.backbone, error.what, ill or error.rows, names) from None
        by_key = dict(zip(places, made, strict=True))
        return [by_key[_key(place)] for place in wanted]

    def _row(self, request: SliceRequest, embedding: Embedding) -> PromptRow:
        box = request.box or request.carried
        use_logits = self.options.mask_input and self.backbone.takes_mask_input
        ambiguous = box is None and len(request.points) == 1
        return PromptRow(
            embedding,
            box,
            request.points,
            request.logits if use_logits else None,
            {"auto": ambiguous, "always": True, "never": False}[self.options.multimask],
            request.case.target if self.options.text_prompt else None,
        )


def _key(place: Place) -> str:
    case, index = place
    return f"{case.content_hash}-{index}"


def _in_turns(requests: Sequence[SliceRequest]) -> Iterable[Place]:
    """Yield the slices ahead, the nearest of every request before the next of any."""
    for turn in range(max(len(one.ahead) for one in requests)):
        for one in requests:
            if turn < len(one.ahead):
                yield one.case, one.ahead[turn]


def _state(
    request: SliceRequest,
    measured: MeasuredMask,
    logits: torch.Tensor,
    mask_input: torch.Tensor | None,
) -> SliceState:
    mask = measured.fetched
    assert mask is not None
    pixels, extent, grey = mask_facts(mask, request.case.image[request.index])
    return SliceState(
        np.packbits(mask, axis=1),
        pixels,
        measured.intersection,
        extent,
        grey,
        # Of its own memory, or a part would keep its whole batch.
        logits.clone(),
        request.box,
        request.points,
        request.carried,
        mask_input=mask_input if request.box is not None or request.points else None,
        corrects=request.corrects,
    )


def mask_facts(
    mask: np.ndarray, image: np.ndarray
) -> tuple[int, AddBox | None, tuple[float, float]]:
    """Return pixels, extent and grey values of the mask of a slice, as `SliceState` has them.

    Args:
        mask: (H, W) bool.
        image: (H, W) or (H, W, 3) uint8.
    """
    pixels = int(np.count_nonzero(mask))
    return (pixels, _extent(mask), _grey(image[mask])) if pixels else (0, None, (0.0, 0.0))


def _extent(mask: np.ndarray) -> AddBox:
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return AddBox(
        float(columns[0] / width),
        float(rows[0] / height),
        float((columns[-1] + 1) / width),
        float((rows[-1] + 1) / height),
    )


def _grey(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of (n,) or (n, 3) pixels."""
    return float(values.mean()), float(values.std())
