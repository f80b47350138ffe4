"""TIFFs that Pillow does not know: separate planes, grey with alpha, colour of 32 bits, BigTIFF."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from medseg_gym.cases.files.access.guards import check_pixels
from medseg_gym.cases.files.defects import Damaged
from medseg_gym.cases.image_files.raster import Raster

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_NONE, _DEFLATE = 1, (8, 32946)


def tiff_size(source: Path | bytes, name: str, place: str) -> tuple[int, int]:
    """(H, W) as the header says.

    Raises:
        Damaged: It has several pages, or announces too many pixels.
    """
    with _page(source, name, place) as page:
        return page.imagelength, page.imagewidth


def read_with_tifffile(source: Path | bytes, name: str, place: str) -> tuple[Raster, int]:
    """Decode a TIFF of one page: grey or RGB, with or without alpha, of any depth.

    Args:
        source: The file, or its bytes.
        name: For the error.
        place: For the error.

    Returns:
        Its samples, as they are stored, and what its orientation tag says.

    Raises:
        Damaged: It holds something else, or is compressed in a way that is not read here.
    """
    with _page(source, name, place) as page:
        colours = 3 if page.photometric == _RGB else 1
        if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
            kind = getattr(page.photometric, "name", page.photometric)
            raise Damaged(name, f"is a TIFF of {kind}; write grey or RGB", place)
        extra = page.samplesperpixel - colours
        if extra not in (0, 1) or (extra and colours == 1 and page.extrasamples[:1] == (0,)):
            raise Damaged(
                name,
                f"has {page.samplesperpixel} channels; write grey or RGB, or one a file",
                place,
            )
        _check_segments(page, name, place)
        pixels = page.asarray(maxworkers=1)
        pixels = pixels.reshape(_shape(page))
        if int(page.planarconfig) == 2:
            pixels = np.moveaxis(pixels, 0, -1)
        if pixels.dtype == np.bool_:
            pixels = pixels.astype(np.uint8) * 255
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
        # An extra channel that says nothing of itself is not alpha.
        alpha = pixels[:, :, -1] if extra and page.extrasamples[:1] != (0,) else None
        values = pixels[:, :, :3] if colours == 3 else pixels[:, :, 0]
        inverted = page.photometric == _WHITE_IS_ZERO
        tag = page.tags.get(274)
        raster = Raster(np.ascontiguousarray(values), alpha, white_is_zero=inverted)
        return raster, int(tag.value) if tag is not None else 1


@contextmanager
def _page(source: Path | bytes, name: str, place: str) -> Iterator[Any]:
    with tifffile.TiffFile(io.BytesIO(source) if isinstance(source, bytes) else source) as file:
        page: Any = file.pages[0]
        if len(file.pages) != 1 or page.imagedepth != 1:
            raise Damaged(name, "has several frames; write one image a file", place)
        check_pixels(page.imagelength, page.imagewidth, name, place)
        yield page


def _shape(page: Any) -> tuple[int, ...]:
    size, samples = (page.imagelength, page.imagewidth), page.samplesperpixel
    return (samples, *size) if int(page.planarconfig) == 2 else (*size, samples)


def _check_segments(page: Any, name: str, place: str) -> None:
    """Refuse data that unpacks to more than the header says, before anything unpacks it."""
    if page.is_tiled:
        check_pixels(page.tilelength, page.tilewidth, name, place)
    if page.compression == _NONE:
        return
    if page.compression not in _DEFLATE:
        kind = getattr(page.compression, "name", page.compression)
        raise Damaged(
            name,
            f"is a TIFF of {page.samplesperpixel} channels of {page.bitspersample} bits compressed "
            f"by {kind}, which is not read; write it with deflate or without compression",
            place,
        )
    sides = (page.tilelength, page.tilewidth) if page.is_tiled else page.shape[:2]
    limit = max(int(page.nbytes), int(np.prod(sides)) * page.samplesperpixel * 8)
    handle = page.parent.filehandle
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        handle.seek(offset)
        if len(zlib.decompressobj().decompress(handle.read(count), limit + 1)) > limit:
            raise Damaged(name, "unpacks to more than its header announces", place)
