"""HfWordsBackbone: SAM 3's detector, which finds everything that words or a box speak of."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from medseg_gym.backbones.batching.passes import BatchedBackbone
from medseg_gym.backbones.batching.resize import resize_to_images
from medseg_gym.backbones.batching.transfer import to_device
from medseg_gym.backbones.families.hf.encoding import embed_images
from medseg_gym.backbones.protocol import Embedding, Prediction, PromptRow
from medseg_gym.errors import BackboneError

BOX_ALONE = "visual"
"""Words of the family's processor where there is a box and no words."""

_PASS = 8  # rows; each takes 200 masks
_TOKENS = 32  # of every sentence, as the family's processor pads them
_KEEP = 0.3  # score of a thing from which on it counts, as in the family's own processing
_NOTHING = -32.0  # logit of a place where nothing counts
_SENTENCES = 4096  # embeddings that are kept


class HfWordsBackbone(BatchedBackbone):
    """SAM 3's detector: one mask of all things that the prompt speaks of.

    A box is an example of what to look for, not a border: things outside of it that look alike
    belong to the mask as well. Things count from a score of 0.3 on; where none does, the mask is
    empty. It takes no clicks and is not fed its own masks.

    Args:
        model: A Sam3Model.
        processor: The model's own; images and words are prepared by it.
        name: Shown in tables.
        device: Where the model goes.
        **options: See `BatchedBackbone`; `decode_batch` is 8 by default, for each row takes the
            masks of all its candidates.
    """

    prompt_kinds = frozenset({"box", "text"})
    trained_kinds = frozenset({"box", "text"})
    takes_mask_input = False

    def __init__(
        self,
        model: Any,
        processor: Any,
        name: str = "hf",
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> None:
        super().__init__(model, name, device, **{"decode_batch": _PASS, **options})
        self._images, self._tokenizer = processor.image_processor, processor.tokenizer
        self._encoder = self.compiled(self.model.get_vision_features)
        self._sentences: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def _encode(self, images: Sequence[np.ndarray]) -> list[Embedding]:
        # The model itself leaves the coarsest level out.
        return embed_images(
            images,
            self._images,
            lambda pixels: self._encoder(pixels).fpn_hidden_states[:-1],
            self.device,
            self.dtype,
        )

    def _decode(self, rows: Sequence[PromptRow]) -> Prediction:
        for i, row in enumerate(rows):
            if row.points:
                raise BackboneError(f"{self.name}: row {i} has clicks; it takes boxes and words")
            if row.box is None and row.text is None:
                raise BackboneError(f"{self.name}: row {i} has neither a box nor words")
        logits: list[torch.Tensor | None] = [None] * len(rows)
        scores: list[torch.Tensor | None] = [None] * len(rows)
        # A row without a box would be given the encoding of none by its neighbours with one.
        for boxed in (False, True):
            members = [i for i, row in enumerate(rows) if (row.box is not None) is boxed]
            if members:
                masks, best = self._run([rows[i] for i in members])
                for i, mask, score in zip(members, masks, best, strict=True):
                    logits[i], scores[i] = mask, score
        return Prediction(torch.stack(logits).float(), torch.stack(scores).float())  # type: ignore[arg-type]

    def _run(self, rows: Sequence[PromptRow]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, B x h x w, and the best score, B, of rows that all have a box, or none has."""
        words = [self._embed(BOX_ALONE if row.text is None else row.text) for row in rows]
        given: dict[str, Any] = {}
        if rows[0].box is not None:
            sides = [[b.x1, b.y1, b.x2, b.y2] for b in (row.box for row in rows) if b is not None]
            corners = to_device(sides, self.device).reshape(len(rows), 2, 2).float()
            centre, size = corners.mean(1), corners[:, 1] - corners[:, 0]
            given["input_boxes"] = torch.cat([centre, size], 1)[:, None]
        made = self.model(
            vision_embeds=self._vision(rows),
            text_embeds=SimpleNamespace(pooler_output=torch.stack([text for text, _ in words])),
            attention_mask=torch.stack([mask for _, mask in words]),
            **given,
        )
        scores = made.pred_logits.float().sigmoid() * made.presence_logits.float().sigmoid()
        counts = (scores > _KEEP)[..., None, None]
        logits = made.pred_masks.float().masked_fill(~counts, _NOTHING).amax(1)
        return logits, scores.amax(1)

    def _vision(self, rows: Sequence[PromptRow]) -> SimpleNamespace:
        """Return the output of the model's vision encoder for the rows' images."""
        levels = [
            torch.stack(level) for level in zip(*(r.embedding.features for r in rows), strict=True)
        ]
        encode = self.model.vision_encoder.neck.position_encoding
        places = [encode(level.shape, level.device, level.dtype) for level in levels]
        return SimpleNamespace(
            # The model leaves out whatever stands last.
            fpn_hidden_states=(*levels, None),
            fpn_position_encoding=(*places, None),
            hidden_states=None,
            attentions=None,
        )

    def _embed(self, text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of a sentence, and which of its places hold words; kept by sentence."""
        if text not in self._sentences:
            made = self._tokenizer(
                text, return_tensors="pt", padding="max_length", max_length=_TOKENS
            )
            if made["input_ids"].shape[1] > _TOKENS:
                raise BackboneError(
                    f"{self.name}: {text[:60]!r} has {made['input_ids'].shape[1]} tokens, SAM 3 "
                    f"reads {_TOKENS}; give the target a shorter name"
                )
            ids, mask = (made[n].to(self.device) for n in ("input_ids", "attention_mask"))
            features = self.model.get_text_features(input_ids=ids, attention_mask=mask)
            if len(self._sentences) >= _SENTENCES:
                del self._sentences[next(iter(self._sentences))]
            self._sentences[text] = features.pooler_output[0], mask[0]
        return self._sentences[text]

    @torch.inference_mode()
    def to_image(self, logits: torch.Tensor, embeddings: Sequence[Embedding]) -> list[torch.Tensor]:
        """Resize to each image."""
        return resize_to_images(logits, embeddings, None)
