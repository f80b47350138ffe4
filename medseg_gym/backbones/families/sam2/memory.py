"""SAM 2's memory over the slices of a volume: one target, both directions.

The work is done by `sam2`'s own `SAM2Base.track_step`; here is what its `SAM2VideoPredictor` does
around it, over embeddings that the decoding of single slices shares, and without its files of
frames and progress bars. Results equal those of the predictor with `fill_hole_area=0`: its filling
of holes needs a CUDA extension that most installations of `sam2` lack, and is then left out there,
too.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch

from medseg_gym.backbones.batching.collate import collate
from medseg_gym.backbones.families.sam2.upscaling import to_grid
from medseg_gym.backbones.protocol import Embedding, PromptRow
from medseg_gym.errors import BackboneError

if TYPE_CHECKING:
    from sam2.modeling.sam2_base import SAM2Base

MASK_INPUT_LIMIT = 32.0
"""sam2's predictors clamp logits that they feed back, not those that they hand out."""


class Sam2Memory:
    """A `SliceMemory` over a SAM 2 model.

    Args:
        model: In evaluation mode; shared, it keeps no state of a volume.
        precision: Context in which the model runs.
        name: Of the backbone, for errors.
        depth: Slices of the volume.
    """

    def __init__(
        self,
        model: SAM2Base,
        precision: Callable[[], AbstractContextManager[None]],
        name: str,
        depth: int,
    ) -> None:
        self._model: Any = model
        self._precision = precision
        self._name = name
        self._depth = depth
        self._prompted: dict[int, dict[str, Any]] = {}
        # By direction: False upward, True downward.
        self._carried: dict[bool, dict[int, dict[str, Any]]] = {False: {}, True: {}}
        self._position: list[torch.Tensor] | None = None
        # Slices that lie farther back are never looked at again.
        self._reach = max(
            model.num_maskmem * model.memory_temporal_stride_for_eval, model.max_obj_ptrs_in_encoder
        )

    def step(self, index: int, row: PromptRow, reverse: bool = False) -> torch.Tensor:
        """See `SliceMemory.step`."""
        prompted = row.box is not None or bool(row.points)
        if not prompted and not self._prompted:
            raise BackboneError(
                f"backbone {self._name!r}: no slice with prompts to remember on slice {index}"
            )
        with self._precision():
            out = self._track(index, row, prompted, reverse)
        kept = {key: out[key] for key in ("obj_ptr", "maskmem_pos_enc")}
        # In half precision, as sam2 keeps it: that rounding is part of its results.
        kept["maskmem_features"] = out["maskmem_features"].to(torch.bfloat16)
        if self._position is None:
            self._position = kept["maskmem_pos_enc"]
        kept["maskmem_pos_enc"] = self._position  # the same on every slice
        if prompted:
            self._prompted[index] = kept
        else:
            carried = self._carried[reverse]
            carried[index] = kept
            carried.pop(index + self._reach if reverse else index - self._reach, None)
        logits: torch.Tensor = out["pred_masks"][0, 0].float()
        # Without this a score that is NaN would read as "the target is not here".
        return torch.where(out["object_score_logits"][0].isfinite(), logits, torch.nan)

    def _track(self, index: int, row: PromptRow, prompted: bool, reverse: bool) -> dict[str, Any]:
        features, sizes = self._levels(row.embedding)
        points, logits = None, None
        if prompted:
            batch = collate([row], features[-1].device, boxes_as_points=True)
            points = {  # the model pads with its "not a point" itself
                "point_coords": batch.coords[:, :-1],
                "point_labels": batch.labels[:, :-1].int(),
            }
            if row.mask_input is not None:
                logits = row.mask_input.clamp(-MASK_INPUT_LIMIT, MASK_INPUT_LIMIT)[None, None]
        out: dict[str, Any] = self._model.track_step(
            frame_idx=index,
            is_init_cond_frame=prompted,
            current_vision_feats=features,
            current_vision_pos_embeds=[self._encoding(features[-1], sizes[-1])],
            feat_sizes=sizes,
            point_inputs=points,
            mask_inputs=None,
            output_dict={
                "cond_frame_outputs": self._prompted,
                "non_cond_frame_outputs": self._carried[reverse],
            },
            num_frames=self._depth,
            track_in_reverse=reverse,
            prev_sam_mask_logits=logits,
        )
        return out

    def _levels(self, embedding: Embedding) -> tuple[list[torch.Tensor], list[tuple[int, int]]]:
        """Features of an embedding as sam2 has them: (H·W) x 1 x C and (H, W), the finest first."""
        *finer, coarsest = embedding.features
        side = self._model.sam_image_embedding_size
        levels, sizes = [], []
        for doublings, grouped in zip((2, 1), finer, strict=False):
            channels_first = grouped.flatten(0, 1).T
            grid = to_grid(channels_first, (side, side), doublings)
            levels.append(grid.flatten(1).T[:, None])
            sizes.append((side << doublings, side << doublings))
        if self._model.directly_add_no_mem_embed:
            coarsest = coarsest - self._model.no_mem_embed[0]  # single slices are decoded with it
        return [*levels, coarsest[:, None]], [*sizes, (side, side)]

    def _encoding(self, features: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Positional encoding of the coarsest level, (H·W) x 1 x C."""
        grid = features.permute(1, 2, 0).unflatten(2, size)
        encoding: torch.Tensor = self._model.image_encoder.neck.position_encoding(grid)
        return encoding.to(features.dtype).flatten(2).permute(2, 0, 1)
