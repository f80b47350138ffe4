"""JPEG 2000 with its samples as they were, by OpenJPEG: Pillow stretches or cuts them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import ImageFile

from medseg_gym.cases.files.defects import Damaged
from medseg_gym.cases.image_files.raster import Raster
from medseg_gym.errors import CaseError

_SPACES = ("sRGB", "monochrome", "unspecified", "unknown")


def read_jpeg2000(file: ImageFile.ImageFile, source: Path | bytes, name: str, place: str) -> Raster:
    """Decode JP2 or a bare codestream: grey or RGB, with or without alpha.

    Args:
        file: As Pillow opened it.
        source: The same file, or its bytes.
        name: For the error.
        place: For the error.

    Raises:
        CaseError: The extra "data" is missing.
        Damaged: It has a palette, or holds other colours.
    """
    try:
        import openjpeg
    except ImportError as error:
        raise CaseError(f'{name}: JPEG 2000 needs pip install "medseg-gym[data]"') from error
    content = source if isinstance(source, bytes) else source.read_bytes()
    facts = openjpeg.get_parameters(content)
    if file.mode == "P" or facts["colourspace"] not in _SPACES:
        kind = "a palette" if file.mode == "P" else f"{facts['colourspace']} colours"
        raise Damaged(name, f"is JPEG 2000 with {kind}; write grey or RGB", place)
    values = np.atleast_3d(openjpeg.decode(content))
    if values.shape[2] > 4:
        raise Damaged(name, f"has {values.shape[2]} channels; write grey or RGB", place)
    bits = int(facts["precision"])
    if bits < 8:
        values = (values * (255 // (2**bits - 1))).astype(np.uint8)
    colours = 3 if values.shape[2] > 2 else 1
    alpha = values[:, :, -1] if values.shape[2] in (2, 4) else None
    kept = values[:, :, :3] if colours == 3 else values[:, :, 0]
    return Raster(np.ascontiguousarray(kept), alpha)
