"""Stored pixels of single DICOM frames, decoded with pydicom."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gym.cases.dicom.facts import quiet
from medseg_gym.cases.files import ByteCache, Damaged, decoding, require_file

CACHE_BYTES = 1 << 28

_EXTRA = (
    "RescaleSlope RescaleIntercept ModalityLUTSequence WindowCenter WindowWidth VOILUTFunction "
    "VOILUTSequence SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence "
    "RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor "
    "BluePaletteColorLookupTableDescriptor RedPaletteColorLookupTableData "
    "GreenPaletteColorLookupTableData BluePaletteColorLookupTableData "
    "SegmentedRedPaletteColorLookupTableData SegmentedGreenPaletteColorLookupTableData "
    "SegmentedBluePaletteColorLookupTableData PresentationLUTShape PixelPaddingValue"
).split()

datasets = ByteCache(CACHE_BYTES)
"""Files of many frames, as they lie on disk: their headers are long to parse."""


def read_frame(path: Path, name: str, frame: int) -> tuple[np.ndarray, Any]:
    """Read the stored values of a frame, YBR turned into RGB, and the header fields they need.

    Args:
        path: The file.
        name: Its path relative to the root, for errors.
        frame: From 0.

    Returns:
        (H, W) or (H, W, 3) array, and a pydicom dataset.

    Raises:
        Damaged: The frame cannot be decoded.
    """
    from pydicom import Dataset
    from pydicom.pixels import pixel_array

    require_file(path, name)
    header = Dataset()
    with quiet(), decoding(name, f"frame {frame}"):
        if frame and _bits(path) == 1:
            return read_frame_of_whole(path, name, frame)  # see `packed_frame`
        pixels = pixel_array(path, ds_out=header, specific_tags=_tags(), index=frame)
    return _two_or_three_axes(pixels, name, frame), header


def _bits(path: Path) -> int | None:
    from pydicom import dcmread

    header = dcmread(path, stop_before_pixels=True, specific_tags=["BitsAllocated"])
    bits: int | None = header.get("BitsAllocated")
    return bits


def read_frame_of_whole(path: Path, name: str, frame: int) -> tuple[np.ndarray, Any]:
    """Read a frame as `read_frame` does, and keep the whole file in memory for its other frames.

    Args:
        path: The file.
        name: Its path relative to the root, for errors.
        frame: From 0.

    Returns:
        (H, W) or (H, W, 3) array, and the whole pydicom dataset.

    Raises:
        Damaged: The frame cannot be decoded.
    """
    from pydicom import dcmread
    from pydicom.pixels import pixel_array

    size = require_file(path, name)
    key = (str(path), path.stat().st_mtime_ns, size)
    with quiet(), decoding(name, f"frame {frame}"):
        header = datasets.get(key, lambda: dcmread(path, force=True), lambda _: size)
        pixels = packed_frame(header, name, frame)
        if pixels is None:
            pixels = pixel_array(header, index=frame)
    return _two_or_three_axes(pixels, name, frame), header


def packed_frame(header: Any, name: str, frame: int) -> np.ndarray | None:
    """Unpack a frame of one bit a pixel, which may begin within a byte (DICOM PS3.5 8.1.1).

    (pydicom reads too few bytes of such a frame where it begins and ends within bytes.)

    Args:
        header: A whole pydicom dataset.
        name: Path of the file relative to the root, for errors.
        frame: From 0.

    Returns:
        (H, W) uint8 of 0 and 1; None where the pixels are stored in another way.

    Raises:
        Damaged: Every frame seems to begin at a byte of its own, against the standard, or there is
            no such frame.
    """
    syntax = getattr(header, "file_meta", {}).get("TransferSyntaxUID")
    if header.get("BitsAllocated") != 1 or syntax is None or syntax.is_encapsulated:
        return None
    rows, columns = int(header.Rows), int(header.Columns)
    frames, size = int(header.get("NumberOfFrames", 1) or 1), rows * columns
    content = header.PixelData
    dense, padded = -(-frames * size // 8), frames * -(-size // 8)
    if dense + dense % 2 < padded <= len(content) <= padded + padded % 2:
        raise Damaged(
            name,
            f"{len(content)} bytes are {frames} frames that each begin at a byte; the standard "
            f"packs them without gaps, into {dense} bytes: write the file again",
        )
    if not syntax.is_little_endian and header["PixelData"].VR == "OW":
        content = np.frombuffer(content[: len(content) // 2 * 2], "<u2").byteswap().tobytes()
    begin = frame * size
    held = np.frombuffer(content[begin // 8 : -(-(begin + size) // 8)], np.uint8)
    bits = np.unpackbits(held, bitorder="little")[begin % 8 :][:size]
    if not 0 <= frame < frames or bits.size < size:
        raise Damaged(name, "the pixel data end before it", f"frame {frame}")
    return bits.reshape(rows, columns)


@cache
def _tags() -> list[int]:
    from pydicom.datadict import tag_for_keyword

    return [tag for keyword in _EXTRA if (tag := tag_for_keyword(keyword)) is not None]


def _two_or_three_axes(pixels: np.ndarray, name: str, frame: int) -> np.ndarray:
    if pixels.ndim not in (2, 3):
        raise Damaged(name, f"decodes to {pixels.ndim} axes", f"frame {frame}")
    return pixels
