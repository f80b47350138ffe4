"""Slices of the pyradiomics volumes, each with one labelled lesion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scripts.samples.origins import RADIOMICS
from scripts.samples.pack import Pack, group_entry
from scripts.samples.targets import BREAST, MASS, NODULE, TUMOUR
from scripts.samples.volumes import MIN_LARGEST, MIN_PIXELS, largest_share, read_volume
from scripts.samples.windows import CT_WINDOW, grey, percentiles


@dataclass(frozen=True)
class Lesion:
    """A pyradiomics volume with one labelled lesion; a window of None means MRI percentiles."""

    name: str
    split: str
    modality: str
    target: str
    window: tuple[float, float] | None
    notes: tuple[str, ...] = ()


# fmt: off
LESIONS = (
    Lesion("lung2", "test", "CT", MASS, CT_WINDOW,
           ("On the lowest slices the mass touches tissue of the same grey.",)),
    Lesion("brain1", "test", "MRI", TUMOUR, None,
           ("On some slices the outline is looser than the bright rim.",)),
    Lesion("lung1", "val", "CT", NODULE, CT_WINDOW, ("Small: at most 0.13 % of the image.",)),
    Lesion("breast1", "val", "MRI", BREAST, None,
           ("A crop of 120 x 45 pixels as the package has it.",
            "On slice 8 the mask covers only the rim of the visible lesion.")),
    Lesion("brain2", "train", "MRI", TUMOUR, None,
           ("Faint and small: hard to see on slice 10.",)),
)
# fmt: on


def add_lesions(pack: Pack, contents: dict[str, bytes]) -> None:
    """Every labelled slice of the pyradiomics volumes."""
    for lesion in LESIONS:
        volume, spacing = read_volume(contents[f"data/{lesion.name}_image.nrrd"])
        labels, _ = read_volume(contents[f"data/{lesion.name}_label.nrrd"])
        window = lesion.window or percentiles(volume[volume > 0])
        how = "HU" if lesion.window else "0.5th..99.5th percentile of the volume's voxels > 0"
        areas = labels.astype(bool).sum((1, 2))
        kept = np.flatnonzero(areas >= MIN_PIXELS)
        dropped = np.flatnonzero((areas > 0) & (areas < MIN_PIXELS)).tolist()
        notes = lesion.notes
        if dropped:
            notes += (f"Slices {dropped} are left out: under {MIN_PIXELS} labelled pixels.",)
        pieces = [int(z) for z in kept if largest_share(labels[z] > 0) < MIN_LARGEST]
        if pieces:
            notes += (f"The mask is in separate pieces on slices {pieces}.",)
        pack.groups[lesion.name] = group_entry(
            lesion.split,
            lesion.modality,
            spacing,
            RADIOMICS,
            f"{window[0]:g}..{window[1]:g} ({how})",
            notes,
        )
        for z in kept.tolist():
            key = f"{lesion.name}-z{z:03d}"
            image = pack.add_image(key, grey(volume[z], window))
            extra = {"slice": z, "single_box": True}
            pack.add_case(key, image, labels[z] > 0, lesion.target, lesion.name, **extra)
