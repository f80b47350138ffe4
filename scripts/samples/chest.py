"""Slices of the slicerio chest CT, with its organs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scripts.samples.origins import SLICERIO
from scripts.samples.pack import Pack, group_entry
from scripts.samples.targets import LEFT, RIBS, RIGHT, TISSUE, VERTEBRA
from scripts.samples.volumes import MIN_LARGEST, MIN_PIXELS, largest_share, read_volume
from scripts.samples.windows import CT_WINDOW, grey


@dataclass(frozen=True)
class Organ:
    """A class of the chest CT: which labels, which slices."""

    name: str
    target: str
    labels: tuple[int, ...]
    slices: range
    single_box: bool = True


CHEST = "CTChest4"
ORGANS = (
    Organ("right-lung", RIGHT, (5,), range(10, 30)),
    Organ("left-lung", LEFT, (6,), range(10, 30)),
    Organ("vertebra", VERTEBRA, (2, 3, 4), range(0, 34)),
    Organ("ribs", RIBS, (1,), range(10, 18), single_box=False),
    Organ("soft-tissue", TISSUE, (7,), range(10, 18), single_box=False),
)
CHEST_NOTES = (
    "vertebra joins the package's classes cervical (2), thoracic (3) and lumbar (4) vertebral "
    "column: their borders do not follow the anatomy (class 4 reaches up to the heart, class 2 "
    "down to the upper chest).",
    "The lungs are taken from slices 10 to 29: below, they are thin crescents; above, the trachea, "
    "which the package counts as right lung, is a good part of the mask, and on slice 33 both lung "
    "labels lie on bone. From slice 21 up, right-lung masks hold a piece of the airways (at most "
    "3 % of the mask).",
    f"A slice is dropped where the largest piece holds under {MIN_LARGEST:.0%} of the mask.",
    "ribs and sternum is the package's class ribs, from slices 10 to 17: above, it also takes in "
    "the shoulder blades and collar bones.",
    "soft tissue is the package's class tissue: all that is neither lung nor bone.",
)


def add_chest(pack: Pack, contents: dict[str, bytes]) -> None:
    """Organs of the chest CT; all targets of a slice share its image."""
    volume, spacing = read_volume(contents["slicerio/data/CTChest4.nrrd"])
    labels, _ = read_volume(contents["slicerio/data/Segmentation.seg.nrrd"])
    window = f"{CT_WINDOW[0]:g}..{CT_WINDOW[1]:g} (HU)"
    pack.groups[CHEST] = group_entry("train", "CT", spacing, SLICERIO, window, CHEST_NOTES)
    for z in range(len(volume)):
        image = ""
        for organ in ORGANS:
            mask = np.isin(labels[z], organ.labels)
            if z not in organ.slices or mask.sum() < MIN_PIXELS:
                continue
            if organ.single_box and largest_share(mask) < MIN_LARGEST:
                continue
            image = image or pack.add_image(f"{CHEST}-z{z:03d}", grey(volume[z], CT_WINDOW))
            extra = {"slice": z, "single_box": organ.single_box}
            pack.add_case(
                f"{CHEST}-z{z:03d}-{organ.name}", image, mask, organ.target, CHEST, **extra
            )
