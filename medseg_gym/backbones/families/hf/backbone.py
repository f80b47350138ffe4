"""HfBackbone: any SAM-like model of transformers as a batch over images.

The decoders of these models have no mask for padded prompts, so a step costs one decoder call for
each combination of number of clicks, box or none, mask or none, and one or three masks; rows of the
same combination share it, whatever their images are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg_gym.backbones.batching.collate import collate
from medseg_gym.backbones.batching.passes import BatchedBackbone
from medseg_gym.backbones.batching.resize import resize_to_images
from medseg_gym.backbones.families.hf.encoding import embed_images, levels_of
from medseg_gym.backbones.families.hf.families import (
    Family,
    family_of,
    place_of,
    read_config,
)
from medseg_gym.backbones.families.hf.words import HfWordsBackbone
from medseg_gym.backbones.protocol import Embedding, Prediction, PromptRow
from medseg_gym.errors import CheckpointError


class HfBackbone(BatchedBackbone):
    """A promptable segmenter of transformers.

    Args:
        model: Of one of `families.FAMILIES`.
        processor: The model's own; images are prepared by it.
        family: Of the model.
        name: Shown in tables.
        device: Where the model goes.
        **options: See `BatchedBackbone`.
    """

    prompt_kinds = frozenset({"box", "point"})
    trained_kinds = frozenset({"box", "point"})
    takes_mask_input = True

    def __init__(
        self,
        model: Any,
        processor: Any,
        family: Family,
        name: str = "hf",
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> None:
        super().__init__(model, name, device, **options)
        self._images = getattr(processor, "image_processor", processor)
        self._family = family
        self._frame_side = (
            int(self.model.config.vision_config.image_size) if family.padded else None
        )
        self._encoder = self.compiled(self.model.get_image_embeddings)

    # encode -----------------------------------------------------------------------------------
    def _encode(self, images: Sequence[np.ndarray]) -> list[Embedding]:
        return embed_images(
            images,
            self._images,
            lambda pixels: levels_of(self._encoder(pixels)),
            self.device,
            self.dtype,
            self._family.padded,
        )

    # decode -----------------------------------------------------------------------------------
    def _decode(self, rows: Sequence[PromptRow]) -> Prediction:
        groups: dict[tuple[int, bool, bool, bool], list[int]] = {}
        for number, row in enumerate(rows):
            key = (len(row.points), row.box is not None, row.mask_input is not None, row.multimask)
            groups.setdefault(key, []).append(number)
        logits: list[torch.Tensor | None] = [None] * len(rows)
        ious: list[torch.Tensor | None] = [None] * len(rows)
        for members in groups.values():
            masks, scores = self._run([rows[number] for number in members])
            for number, mask, score in zip(members, masks, scores, strict=True):
                logits[number], ious[number] = mask, score
        return Prediction(torch.stack(logits).float(), torch.stack(ious).float())  # type: ignore[arg-type]

    def _run(self, rows: Sequence[PromptRow]) -> tuple[torch.Tensor, torch.Tensor]:
        """Best mask, B x h x w, and its predicted IoU, B, of rows of one combination."""
        given: dict[str, Any] = self._features(rows)
        tokens, clicks = collate(rows, self.device), len(rows[0].points)
        if clicks:
            given["input_points"] = tokens.coords[:, None, :clicks]
            given["input_labels"] = tokens.labels[:, None, :clicks]
        if rows[0].box is not None:  # its corners stand behind the clicks
            given["input_boxes"] = tokens.coords[:, clicks : clicks + 2].flatten(1)[:, None]
        if rows[0].mask_input is not None:
            fed = [row.mask_input for row in rows if row.mask_input is not None]
            given["input_masks"] = torch.stack(fed)[:, None]
        made = self.model(**given, multimask_output=rows[0].multimask)
        masks, scores = made.pred_masks[:, 0], made.iou_scores[:, 0]
        best = scores.argmax(dim=1)
        every_row = torch.arange(len(rows), device=self.device)
        return masks[every_row, best], scores[every_row, best]

    def _features(self, rows: Sequence[PromptRow]) -> dict[str, Any]:
        """Arguments of the model that hold the rows' images."""
        levels = [
            torch.stack(level) for level in zip(*(r.embedding.features for r in rows), strict=True)
        ]
        if not self._family.padded:
            return {"image_embeddings": levels}
        if len(levels) > 1:  # SAM-HQ reads early features of its encoder too
            return {"image_embeddings": levels[0], "intermediate_embeddings": levels[1:]}
        return {"image_embeddings": levels[0]}

    # back to the image --------------------------------------------------------------------------
    @torch.inference_mode()
    def to_image(self, logits: torch.Tensor, embeddings: Sequence[Embedding]) -> list[torch.Tensor]:
        """Resize to each image; a padded family to its square first, whose padding is cut off."""
        return resize_to_images(logits, embeddings, self._frame_side)


def build(
    checkpoint: str | Path,
    device: torch.device,
    download: bool = False,
    words: bool = False,
    **options: Any,
) -> HfBackbone | HfWordsBackbone:
    """Build a backbone from a checkpoint of transformers.

    Args:
        checkpoint: Folder, or id in the local Hugging Face cache.
        device: Where the model goes.
        download: Ask the hub for what is not there.
        words: Of a checkpoint that holds several models, take the one that finds things by words.
        **options: See `BatchedBackbone`.

    Raises:
        CheckpointError: It is not there, or its files cannot be loaded.
        BackboneError: A model of another type.
    """
    import transformers
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would cut through the program's own
    name = str(checkpoint)
    family = family_of(name, read_config(name, download), words)
    place = place_of(name)
    try:
        model_class = getattr(transformers, family.model)
        model, loaded = model_class.from_pretrained(
            place, local_files_only=not download, output_loading_info=True
        )
        processor = transformers.AutoProcessor.from_pretrained(place, local_files_only=not download)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise CheckpointError(
            f"hf:{name} cannot be loaded: {str(error).splitlines()[0][:200]}; a folder needs what "
            "save_pretrained of model and processor writes"
        ) from error
    if loaded["missing_keys"]:  # transformers would play on with random numbers in their place
        lacking = sorted(loaded["missing_keys"])
        raise CheckpointError(
            f"hf:{name} lacks {len(lacking)} of the weights of a {family.model}, {lacking[0]} "
            "among them: it is incomplete, or of another model than its config.json says"
        )
    shown = f"hf:{Path(name).name}"
    if family.words:
        return HfWordsBackbone(model, processor, shown, device, **options)
    return HfBackbone(model, processor, family, shown, device, **options)
