"""Real cases that travel inside the package: CT, MRI and fluorescence microscopy.

`load_cases("samples", split)` opens the ordinary cases: single objects for one box;
`load_cases("samples:multi-part", "train")` the ones in many pieces (ribs, soft tissue, all nuclei).
Where every image and mask comes from, and under which licence, is in `data/README.md` and
`data/index.json`; `scripts/samples/build.py` makes the folder anew.
"""

from __future__ import annotations

from medseg_gym.cases.samples.pack import SamplePack, SampleSource, open_pack
from medseg_gym.errors import CaseError

__all__ = ["SamplePack", "SampleSource", "load", "open_pack"]

ARGUMENTS = {"": False, "multi-part": True}


def load(argument: str, split: str) -> SampleSource:
    """Open one split of the packaged cases.

    Args:
        argument: "" for the ordinary cases, "multi-part" for the many-piece targets.
        split: "train", "val" or "test"; "multi-part" has "train" alone.

    Returns:
        The source; nothing is decoded before its first case is read.

    Raises:
        CaseError: Unknown argument, a split without cases, or a damaged pack.
    """
    if argument not in ARGUMENTS:
        raise CaseError(
            f"unknown case spec 'samples:{argument}'; use 'samples' or 'samples:multi-part'"
        )
    return open_pack().source(split, multi_part=ARGUMENTS[argument])
