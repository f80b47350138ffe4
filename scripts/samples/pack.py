"""The folder being written: images, masks and the entries of the index."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scripts.samples.origins import Origin


@dataclass
class Pack:
    """The folder being written."""

    path: Path
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    cases: list[dict[str, Any]] = field(default_factory=list)

    def add_image(self, name: str, pixels: np.ndarray) -> str:
        """Write an 8-bit PNG; returns its path in the pack."""
        return self._write(f"images/{name}.png", Image.fromarray(pixels))

    def add_case(
        self, key: str, image: str, mask: np.ndarray, target: str, group: str, **extra: Any
    ) -> None:
        """Write a mask and its line of the index."""
        bits = Image.fromarray(mask.astype(np.uint8) * 255).convert("1", dither=Image.Dither.NONE)
        entry: dict[str, Any] = {
            "key": key,
            "image": image,
            "mask": self._write(f"masks/{key}.png", bits),
        }
        entry |= {"target": target, "group": group, **extra, "area": int(mask.sum())}
        self.cases.append(entry)

    def _write(self, name: str, image: Image.Image) -> str:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(self.path / name, optimize=True)
        return name


def group_entry(
    split: str, modality: str, spacing: Any, origin: Origin, window: str, notes: tuple[str, ...]
) -> dict[str, Any]:
    """Return the entry of one volume in the index."""
    return {
        "split": split,
        "modality": modality,
        "spacing": spacing,
        "origin": origin.name,
        "window": window,
        "notes": list(notes),
    }
