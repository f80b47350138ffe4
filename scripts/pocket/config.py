"""Every setting of a `pocket` training run, in one place."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from medseg_gym.errors import MedSegError
from medseg_gym.storage.atomic_write import atomic_write

RECIPES = ("distil", "scratch")


@dataclass(frozen=True, kw_only=True)
class PocketConfig:
    """Settings of a run; two runs with the same settings draw the same images and prompts."""

    recipe: str = "distil"
    """"distil" learns LiteMedSAM's embeddings beside the masks, and also from its masks; "scratch"
    sees no teacher and has its embedding say which neighbours belong together and where the edges
    are.
    """

    steps: int = 3900
    """Optimiser steps."""

    seed: int = 0
    """Of weights, images and prompts."""

    images: int = 6
    """Images in a step of one process."""

    targets: int = 2
    """Targets drawn in each image."""

    rounds: int = 5
    """Most rounds of prompts in a step; the number is drawn from 1 to this."""

    rate: float = 1.5e-3
    """Peak learning rate of AdamW."""

    warmup: int = 100
    """Steps until it is reached."""

    decay: float = 0.4
    """Share of the steps, at the end, in which it falls to nothing."""

    ema: float = 0.998
    """Decay of the averaged weights that are validated and shipped."""

    distil_weight: float = 1.0
    """Of the embedding loss at the start; it falls to a tenth by the end."""

    auxiliary_weight: float = 0.3
    """Of the affinity and edge losses."""

    bfloat16: bool = True
    """Forward passes under autocast."""

    start: str | None = None
    """Weight file to start from; None starts from fresh weights."""

    validate_every: int = 500
    """Steps between validations."""

    save_every: int = 100
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise MedSegError(f"recipe must be one of {', '.join(RECIPES)}, got {self.recipe!r}")
        for name in ("steps", "images", "targets", "rounds", "validate_every", "save_every"):
            if getattr(self, name) < 1:
                raise MedSegError(f"{name} must be at least 1, got {getattr(self, name)}")

    def write(self, path: Path) -> None:
        """Write as JSON."""
        atomic_write(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> PocketConfig:
        """Read what `write` wrote.

        Raises:
            MedSegError: The file is not such a file.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            unknown = set(values) - {field.name for field in fields(cls)}
            if unknown:
                raise ValueError(f"unknown settings {', '.join(sorted(unknown))}")
            return cls(**values)
        except (OSError, ValueError, TypeError) as error:
            raise MedSegError(f"{path}: not the settings of a run ({error})") from None
