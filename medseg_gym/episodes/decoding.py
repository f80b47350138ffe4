"""From decoder rows of cases to measured masks, and the mask that a target's text alone makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from medseg_gym.backbones.finite import NonFiniteError
from medseg_gym.backbones.protocol import Backbone, Embedding, PromptRow
from medseg_gym.cases import Case
from medseg_gym.episodes.masks import Fetch, MeasuredMask, check_prediction, measure_masks


def decode_masks(
    backbone: Backbone,
    rows: Sequence[PromptRow],
    cases: Sequence[Case],
    truths: Sequence[torch.Tensor],
    fetch: Fetch | None = None,
) -> tuple[list[MeasuredMask], torch.Tensor]:
    """Decode rows in one call and measure their masks.

    Args:
        backbone: The segmenter.
        rows: One per mask.
        cases: Of the rows, for errors.
        truths: Of the rows, each H x W bool on the backbone's device.
        fetch: See `measure_masks`.

    Returns:
        A mask per row at its truth's size, and the low-resolution logits, B x h x w.

    Raises:
        BackboneError: Numbers that are not finite, naming the cases.
    """
    try:
        with torch.inference_mode():
            prediction = backbone.decode(rows)
            check_prediction(backbone.name, prediction, len(rows))
            images = backbone.to_image(prediction.logits, [row.embedding for row in rows])
            measured = measure_masks(images, truths, backbone.name, prediction, fetch)
    except NonFiniteError as error:
        raise error.about(case_names(cases)) from None
    return measured, prediction.logits


def begin_with_text(
    backbone: Backbone,
    cases: Sequence[Case],
    embeddings: Sequence[Embedding],
    truths: Sequence[torch.Tensor],
) -> list[Case]:
    """Give every case that has no initial mask the one that its target's text alone makes.

    Args:
        backbone: Takes text without a box or a click.
        cases: That begin.
        embeddings: Of their images.
        truths: Of the cases, see `decode_masks`.

    Raises:
        BackboneError: It cannot read a text, or its numbers are not finite.
    """
    begun = list(cases)
    bare = [i for i, case in enumerate(begun) if case.initial_mask is None]
    if not bare:
        return begun
    rows = [PromptRow(embeddings[i], text=begun[i].target) for i in bare]
    of_rows, of_truths = [begun[i] for i in bare], [truths[i] for i in bare]
    measured, _ = decode_masks(backbone, rows, of_rows, of_truths)
    for i, one in zip(bare, measured, strict=True):
        begun[i] = replace(begun[i], initial_mask=one.mask.cpu().numpy())
    return begun


def case_names(cases: Sequence[Case]) -> list[str]:
    """Return what errors call cases."""
    return [f"case {case.key!r}" for case in cases]
