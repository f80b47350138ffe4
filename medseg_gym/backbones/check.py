"""Does a backbone work here: one box and one click on a real case."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from medseg_gym.backbones.finite import NonFiniteError, rows_not_finite
from medseg_gym.backbones.protocol import Backbone, Embedding, PromptRow
from medseg_gym.cases import Case, load_cases
from medseg_gym.prompts import AddBox, AddPoint


@dataclass(frozen=True)
class CheckResult:
    """Result of `check`.

    Args:
        device: The backbone's.
        case: Key of the case.
        parameters: Of the model; None where the backbone has none to count.
        dice: By prompt kind, "box" and "point".
        encode_ms: Median time of encoding the image.
        decode_ms: Median time of decoding one box and resizing the mask.
        trained_kinds: Of the backbone.
    """

    device: str
    case: str
    parameters: int | None
    dice: dict[str, float]
    encode_ms: float
    decode_ms: float
    trained_kinds: frozenset[str]

    def rows(self) -> list[tuple[str, str]]:
        """Label and value, for a table."""
        rows = [("case", f"{self.case} (samples, train split)")]
        if self.parameters is not None:
            rows.append(("parameters", f"{self.parameters / 1e6:.1f} M"))
        for kind, label in (("box", "Dice, tight box"), ("point", "Dice, one click")):
            if kind in self.dice:
                note = "" if kind in self.trained_kinds else " (not trained for it)"
                rows.append((label, f"{self.dice[kind]:.3f}{note}"))
        rows.append(("encode one image", f"{self.encode_ms:.1f} ms"))
        rows.append(("decode one prompt", f"{self.decode_ms:.1f} ms"))
        return rows


def check(
    backbone: Backbone, key: str = "CTChest4-z020-left-lung", repeats: int = 5
) -> CheckResult:
    """Give a backbone one box and one click on a bundled case.

    Args:
        backbone: To check.
        key: A case of the train split of `samples`.
        repeats: Times measured; the median counts.

    Raises:
        BackboneError: Its logits are not finite.
    """
    source = load_cases("samples", "train")
    case = source[source.index_of(key)]
    (embedding,), encode_ms = _timed(lambda: backbone.encode([case.image]), backbone, repeats)
    box, click = _prompts(case)
    rows = {
        "box": PromptRow(embedding, box=box),
        "point": PromptRow(embedding, points=(click,), multimask=True),
    }
    scores, decode_ms = {}, 0.0
    for kind, row in rows.items():
        if kind not in backbone.prompt_kinds:
            continue
        mask, elapsed = _timed(partial(_decode, backbone, row), backbone, repeats)
        scores[kind] = _dice(mask, case)
        decode_ms = decode_ms or elapsed
    model = getattr(backbone, "model", None)
    count = None if model is None else sum(p.numel() for p in model.parameters())
    return CheckResult(
        str(backbone.device), key, count, scores, encode_ms, decode_ms, backbone.trained_kinds
    )


def _decode(backbone: Backbone, row: PromptRow) -> torch.Tensor:
    prediction = backbone.decode([row])
    embeddings: list[Embedding] = [row.embedding]
    (logits,) = backbone.to_image(prediction.logits, embeddings)
    for what, values in (("logits", prediction.logits[0]), ("logits at image size", logits)):
        if rows_not_finite([values]):
            raise NonFiniteError(backbone.name, what, [0], ["the case of this check"])
    return logits > 0


def _dice(mask: torch.Tensor, case: Case) -> float:
    truth = torch.from_numpy(case.mask.copy()).to(mask.device)
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


def _prompts(case: Case) -> tuple[AddBox, AddPoint]:
    rows, columns = (np.flatnonzero(case.mask.any(axis=axis)) for axis in (1, 0))
    height, width = case.mask.shape
    box = AddBox(
        columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height
    )
    # A pixel of the target in the middle of its list is not central, but surely inside.
    y, x = np.argwhere(case.mask)[np.count_nonzero(case.mask) // 2]
    return box, AddPoint((x + 0.5) / width, (y + 0.5) / height)


def _timed(work: Callable[[], Any], backbone: Backbone, repeats: int) -> tuple[Any, float]:
    result, times = work(), []  # the first call warms up
    for _ in range(repeats):
        began = time.perf_counter()
        result = work()
        if backbone.device.type == "cuda":
            torch.cuda.synchronize(backbone.device)
        times.append(time.perf_counter() - began)
    return result, sorted(times)[len(times) // 2] * 1000
