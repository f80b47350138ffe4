"""Nothing that is not a finite number leaves a backbone: no mask, no score, no cached embedding.

A NaN is neither above nor below the threshold of a mask: unchecked it reads as an empty mask, which
scores 1 where the target is absent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from medseg_gym.backbones.protocol import Embedding
from medseg_gym.errors import BackboneError

_ADVICE = (
    "no mask is made of them. Check its weights, and its precision: float16 overflows where "
    'dtype="float32" or "bfloat16" does not'
)


class NonFiniteError(BackboneError):
    """A backbone gave NaN or infinity.

    Args:
        backbone: Its name.
        what: What was not finite, such as "logits".
        rows: Positions in the batch, at least one.
        names: What stands at those positions, such as the keys of cases; empty where only the
            positions are known.
    """

    def __init__(
        self, backbone: str, what: str, rows: Sequence[int], names: Sequence[str] = ()
    ) -> None:
        self.backbone, self.what = backbone, what
        self.rows, self.names = tuple(rows), tuple(names)
        where = ", ".join(self.names[:5]) or f"rows {', '.join(map(str, self.rows[:5]))}"
        more = f" and {len(self.rows) - 5} more" if len(self.rows) > 5 else ""
        super().__init__(
            f"backbone {backbone!r}: {what} that are not finite numbers (NaN or infinity) for "
            f"{where}{more}: {_ADVICE}"
        )

    def __reduce__(self) -> tuple:
        return NonFiniteError, (self.backbone, self.what, self.rows, self.names)

    def starting_at(self, row: int) -> NonFiniteError:
        """Return the same error about a batch of which this one was a part.

        Args:
            row: Of that batch, at which the part began.
        """
        return NonFiniteError(self.backbone, self.what, [row + one for one in self.rows])

    def about(self, names: Sequence[str]) -> NonFiniteError:
        """The same error, saying what each row is.

        Args:
            names: Of all rows of the batch, in order.
        """
        known = [row for row in self.rows if 0 <= row < len(names)]
        return NonFiniteError(self.backbone, self.what, known, [names[row] for row in known])


def row_sums(values: torch.Tensor) -> torch.Tensor:
    """A sum per row, B float32: not finite if any value of the row is not; one kernel.

    A sum of finite numbers may overflow, so what it flags is looked at again, see
    `rows_not_finite`.

    Args:
        values: B x ... of any number type.
    """
    return values.flatten(1).sum(1, dtype=torch.float32)


def rows_not_finite(values: Sequence[torch.Tensor]) -> list[int]:
    """Positions of tensors that hold a value which is not finite; waits for the device."""
    return [i for i, value in enumerate(values) if not bool(torch.isfinite(value).all())]


def embeddings_not_finite(embeddings: Mapping[str, Embedding]) -> set[str]:
    """Keys of embeddings with features that are not finite; one transfer to the host.

    Args:
        embeddings: Fresh ones, by any key.
    """
    keys = [key for key, embedding in embeddings.items() for _ in embedding.features]
    features = [part for embedding in embeddings.values() for part in embedding.features]
    if not features:
        return set()
    sums = torch.stack([part.sum(dtype=torch.float32) for part in features]).tolist()
    suspects = [i for i, total in enumerate(sums) if not math.isfinite(total)]
    return {keys[suspects[i]] for i in rows_not_finite([features[i] for i in suspects])}


def check_finite_arrays(backbone: str, logits: np.ndarray, iou: np.ndarray) -> None:
    """Refuse logits or predicted IoU that came from another process and are not finite.

    Args:
        backbone: For the error.
        logits: (B, h, w).
        iou: (B,).

    Raises:
        NonFiniteError: With the rows.
    """
    for what, values in (("logits", logits), ("predicted IoU", iou)):
        with np.errstate(over="ignore", invalid="ignore"):
            whole = bool(np.isfinite(values.sum(dtype=np.float64)))
        if whole:
            continue
        fine = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        if not fine.all():
            raise NonFiniteError(backbone, what, np.flatnonzero(~fine).tolist())
