"""Options of the MONAI Label routes, given by the program that starts the service."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg_gym.cases.volumes import parse_window
from medseg_gym.errors import MedSegError
from medseg_gym.serving.policy_to_build import PolicyToBuild


@dataclass(frozen=True, kw_only=True)
class MonaiLabelOptions:
    """Options of the MONAI Label routes.

    Raises:
        MedSegError: No label, one that is there twice, a window that is none, or a bound below 1.
    """

    labels: Sequence[str] = ("target",)
    """Names that people can give to a segment. Each is also the target, in words, that policies are
    asked for: one after the other, with the values 1, 2, ... in the answer."""

    policies: Sequence[PolicyToBuild] = ()
    """Policies that appear as models which work by themselves; none that is shown the truth."""

    studies: Path | None = None
    """Folder of NIfTI, NRRD and MetaImage files and of DICOM series that `/datastore/` shows, and
    where labels are saved; None shows an empty datastore."""

    window: str = ""
    """Intensities shown black and white, as `parse_window` reads them, where a request names none;
    "" takes percentiles of each scan."""

    max_voxels: int = 1 << 28
    """Most voxels of one image: 512 x 512 x 1024."""

    image_bytes: int = 4 << 30
    """Most bytes on disk of the images in all sessions."""

    max_images: int = 16
    """Most sessions of one owner; a further one ends the one that was idle for the longest."""

    session_seconds: float = 3600.0
    """A session is closed when nobody has used it for so long; clients may ask for less."""

    steps: int = 20
    """Actions of a policy on a volume, or on every slice of one."""

    reward: str = "dice_gain"
    """Name for `rewards.make`, the same for all extensions of a service. Nothing is scored here."""

    def __post_init__(self) -> None:
        if not self.labels or len(set(self.labels)) < len(self.labels) or not all(self.labels):
            raise MedSegError(
                f"labels must be one name or several different ones, got {list(self.labels)}"
            )
        if len(self.labels) > 255:
            raise MedSegError("more than 255 labels do not fit into a label image of uint8")
        parse_window(self.window, "")
        for bound in ("max_voxels", "image_bytes", "max_images", "session_seconds", "steps"):
            if getattr(self, bound) < 1:
                raise MedSegError(f"{bound} of the MONAI Label routes must be at least 1")
