"""Options of a published protocol, for `medseg eval`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from medseg_gym.options import Options


@dataclass(frozen=True, kw_only=True)
class ProtocolOptions(Options):
    """A published protocol instead of a policy."""

    topic: ClassVar[str] = "Published protocol"

    protocol: Literal["", "cvpr2025-interactive-3d"] = ""
    """cvpr2025-interactive-3d plays all volumes of --cases npz:PATH by the rules of that challenge,
    slice by slice with --backbone, and writes its table; no policy, split or steps then.
    """

    box: bool = True
    """The first iteration is a box; without it, and for files that hold none, there are clicks
    alone.
    """

    make_boxes: bool = False
    """Make the boxes by the challenge's rule where a file holds none, as its training files do."""
