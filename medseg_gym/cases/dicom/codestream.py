"""Read the size of a compressed image from its own header, before decoding."""

from __future__ import annotations

_JPEG2000 = b"\xff\x4f\xff\x51"  # start of codestream, then the SIZ marker
_JPEG = b"\xff\xd8\xff"  # start of image, then any marker
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}  # JPEG and JPEG-LS


def codestream_size(content: bytes) -> tuple[int, int] | None:
    """Return rows and columns of the first image in encapsulated pixel data.

    Args:
        content: The beginning of the pixel data.

    Returns:
        None where it is neither JPEG, JPEG-LS nor JPEG 2000, or does not say.
    """
    start = content.find(_JPEG2000)
    if start >= 0 and len(content) >= start + 24:
        x, y, left, top = (
            int.from_bytes(content[start + at : start + at + 4], "big") for at in (8, 12, 16, 20)
        )
        return y - top, x - left
    at = content.find(_JPEG) + 2
    while 2 <= at and at + 9 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _FRAME_MARKERS:
            rows = int.from_bytes(content[at + 5 : at + 7], "big")
            columns = int.from_bytes(content[at + 7 : at + 9], "big")
            return (rows, columns) if rows and columns else None
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return None
