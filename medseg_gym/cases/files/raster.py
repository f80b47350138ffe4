"""From an image file to its samples: every depth, colour table, alpha channel and orientation."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from medseg_gym.cases.files.defects import Damaged, decoding
from medseg_gym.cases.files.guards import check_pixels, require_file

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif"),
    *(".pgm", ".ppm", ".pbm", ".pnm"),
)
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM")
_ORIENTATION = 0x0112

_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
"""What the values of EXIF's Orientation ask for; 1 and all others ask for nothing."""

_BACK = {6: 8, 8: 6}


@dataclass(frozen=True, eq=False)
class Raster:
    """The samples of an image file.

    Args:
        values: (H, W) grey or index, or (H, W, 3) colour; uint8, or of another type where the file
            has more than 8 bits a sample. Grey of 1, 2 and 4 bits is spread over 0..255.
        alpha: (H, W) opacity, of any type, opaque at `opaque`; None where nothing is said of it.
        palette: (n, 3) uint8: `values` are indices into it; None where they are not.
        space: Where the colours were converted to RGB, what they were: CMYK, YCbCr, LAB.
        white_is_zero: The file shows 0 as white; True only where `values` are not inverted yet.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    palette: np.ndarray | None = None
    space: str = ""
    white_is_zero: bool = False

    @property
    def deep(self) -> bool:
        """Whether a sample is more than a byte, so that nothing says which values are visible."""
        return bool(self.values.dtype != np.uint8)

    @property
    def colours(self) -> np.ndarray:
        """The values with the colour table applied: (H, W) or (H, W, 3)."""
        return self.values if self.palette is None else self.palette[self.values]

    @property
    def opaque(self) -> float:
        """Alpha of an opaque pixel."""
        kind = np.uint8 if self.alpha is None else self.alpha.dtype
        return float(np.iinfo(kind).max) if np.issubdtype(kind, np.integer) else 1.0

    def turned(self, orientation: int) -> Raster:
        """Return it as EXIF's orientation says that it is shown."""
        if orientation not in _TURNS:
            return self
        turn = _TURNS[orientation]
        alpha = None if self.alpha is None else np.ascontiguousarray(turn(self.alpha))
        return replace(self, values=np.ascontiguousarray(turn(self.values)), alpha=alpha)


def read_raster(source: Path | bytes, name: str, place: str = "", stored: bool = False) -> Raster:
    """Decode an image file without interpreting its values.

    Args:
        source: The file, or its bytes.
        name: Path relative to the root, for the error.
        place: Where inside of it, for the error.
        stored: Leave the pixels as they are stored, whatever orientation EXIF (or the TIFF tag)
            gives; by default they are turned as every viewer shows them.

    Raises:
        Damaged: It is no image, has several frames or too many pixels, or cannot be decoded.
    """
    if isinstance(source, Path):
        require_file(source, name)
    with decoding(name, place):
        file = _open(source, name, place)
        if file is None:
            return _from_tiff(source, name, place, stored)
        with file:
            if file.format == "TIFF" and _is_deep_tiff(file):
                return _deep_tiff(file, source, name, place, stored)
            # Pillow itself turns a TIFF while it decodes it, and forgets the tag.
            before = _orientation(file) if file.format == "TIFF" else 1
            found = _samples(file, source, name, place)
            after = _orientation(file)
            if not stored:
                return found.turned(after)
            return found.turned(_BACK.get(before, before)) if before != after else found


def picture_size(source: Path | bytes, name: str, place: str = "") -> tuple[int, int]:
    """(H, W) that the header of an image file announces, not turned by EXIF.

    Raises:
        Damaged: It cannot be opened, has several frames, or announces too many pixels.
    """
    if isinstance(source, Path):
        require_file(source, name)
    with decoding(name, place):
        file = _open(source, name, place)
        if file is None:
            from medseg_gym.cases.files.deep_tiff import tiff_size

            return tiff_size(source, name, place)
        with file:
            return file.height, file.width


def _open(source: Path | bytes, name: str, place: str) -> ImageFile.ImageFile | None:
    """An image that Pillow knows, its pixels not yet decoded; None for a TIFF that it does not."""
    try:
        file = Image.open(
            io.BytesIO(source) if isinstance(source, bytes) else source, formats=_FORMATS
        )
    except UnidentifiedImageError as error:
        if _head(source, 4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return None
        raise Damaged(name, f"is not a picture ({', '.join(_FORMATS)})", place) from error
    try:
        check_pixels(file.height, file.width, name, place)
        if getattr(file, "is_animated", False):
            raise Damaged(name, "has several frames; write one picture a file", place)
    except BaseException:
        file.close()
        raise
    return file


def _head(source: Path | bytes, count: int) -> bytes:
    if isinstance(source, bytes):
        return source[:count]
    with source.open("rb") as file:
        return file.read(count)


def _samples(file: ImageFile.ImageFile, source: Path | bytes, name: str, place: str) -> Raster:
    from medseg_gym.cases.files import deep_samples

    if file.format == "PNG" and deep_samples.is_deep_png(file):
        return deep_samples.read_png(file, source)
    if file.format == "PPM" and (most := deep_samples.most_of_pnm(file)) > 255:
        return deep_samples.read_pnm(file, source, most, name, place)
    clear = file.info.get("transparency")
    mode = file.mode
    if mode == "P":
        return _paletted(np.asarray(file), file, clear)
    if mode == "PA":
        both = np.asarray(file)
        return replace(_paletted(both[:, :, 0], file, None), alpha=both[:, :, 1])
    if mode in ("LA", "RGBA", "La", "RGBa"):
        both = np.asarray(file.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode)))
        values = both[:, :, 0] if mode in ("LA", "La") else both[:, :, :3]
        return Raster(np.ascontiguousarray(values), both[:, :, -1])
    if mode in ("1", "L", "RGB") or mode.startswith("I") or mode == "F":
        values = np.asarray(file.convert("L") if mode == "1" else file)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        return Raster(values, deep_samples.keyed(values, clear))
    space = "" if mode == "RGBX" else mode
    return Raster(np.asarray(file.convert("RGB")), space=space)


def _paletted(index: np.ndarray, file: Image.Image, clear: Any) -> Raster:
    """A palette image; `clear` is an index without opacity, or an opacity for each index."""
    table = np.zeros((256, 3), np.uint8)  # an index beyond the file's own table is black
    own = np.asarray(file.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
    table[: len(own)] = own
    alpha = None
    if clear is not None:
        opacity = np.full(256, 255, np.uint8)
        if isinstance(clear, bytes):
            opacity[: len(clear[:256])] = np.frombuffer(clear[:256], np.uint8)
        else:
            opacity[int(clear)] = 0
        alpha = opacity[index]
    return Raster(index, alpha, table)


def _orientation(file: Image.Image) -> int:
    try:
        found = file.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF says nothing, and takes no pixel away
        return 1
    return found if isinstance(found, int) else 1


def _is_deep_tiff(file: Any) -> bool:
    bits, kinds = file.tag_v2.get(258, (1,)), file.tag_v2.get(339, (1,))
    unsigned = all(kind in (1, 4) for kind in np.ravel(kinds))
    return int(np.max(bits)) > 8 or not unsigned


def _deep_tiff(file: Any, source: Path | bytes, name: str, place: str, stored: bool) -> Raster:
    from medseg_gym.cases.files import deep_samples

    before = _orientation(file)
    found = deep_samples.read_tiff(file, source)
    if found is None:
        return _from_tiff(source, name, place, stored)
    done = before != _orientation(file)
    if stored == done:
        return found.turned(_BACK.get(before, before) if stored else before)
    return found


def _from_tiff(source: Path | bytes, name: str, place: str, stored: bool) -> Raster:
    from medseg_gym.cases.files.deep_tiff import read_with_tifffile

    found, orientation = read_with_tifffile(source, name, place)
    return found if stored else found.turned(orientation)
