"""Images that several chains learn from, drawn once: those of one chain taken by another."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from benchmarks.learning.chain_sizes import Chain
from medseg_gym.errors import MedSegError
from medseg_gym.storage.atomic_write import atomic_path

# What decides how the images of first turns and of the vision tower look, and what is asked.
_SAME = (
    *("cases", "image_size", "overlay", "coordinates", "max_steps"),
    *("experts", "images", "questions"),
)
_DRAWN = ("first_turns/[0-9]*.parquet", "vision/train/[0-9]*.npz", "vision/val/[0-9]*.npz")


def take_drawings(chain: Chain, out: Path) -> None:
    """Link the images of the chain's `drawings` into its own folder; what is missing is drawn.

    Args:
        chain: Sizes of the chain.
        out: Its folder.

    Raises:
        MedSegError: There is no chain, or its images are of other sizes.
    """
    other = Path(chain.drawings)
    file = other / "chain.json"
    if not file.exists():
        raise MedSegError(f"drawings={other}: there is no {file}; begin that chain first")
    sizes = json.loads(file.read_text(encoding="utf-8"))
    for name in _SAME:
        if sizes.get(name) != getattr(chain, name):
            raise MedSegError(
                f"drawings={other} has {name}={sizes.get(name)}, this chain "
                f"{getattr(chain, name)}; give both the same, or leave drawings= out"
            )
    for pattern in _DRAWN:
        for made in sorted(other.glob(pattern)):
            wanted = out / made.relative_to(other)
            if not wanted.exists():
                _link(made, wanted)


def _link(made: Path, wanted: Path) -> None:
    wanted.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(made, wanted)
    except OSError:  # on another disk, or one that has no links
        with atomic_path(wanted) as temporary:
            shutil.copyfile(made, temporary)
