"""NRRD and MetaImage files (.nrrd, .nhdr, .mha, .mhd) through SimpleITK.

One library reads the four and gives their headers alone. (pynrrd reads the first two, in Python,
and has no MetaImage; its geometry is what the tests compare with.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gym.cases.volumes.header import Segment, VolumeHeader, check_header
from medseg_gym.errors import CaseError

_COMPRESSED = re.compile(rb"^encoding:\s*(?!raw|\s)|^compresseddata\s*=\s*true", re.I | re.M)
_BEGIN = re.compile(rb"^elementdatafile\s*=\s*local\s*?\n|\r?\n\r?\n", re.I | re.M)
_HEADER = 1 << 16  # bytes looked at for those
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_header(path: Path) -> VolumeHeader:
    """Read the header of a NRRD or MetaImage file, with the segment names of 3D Slicer.

    A fourth axis becomes channels, as the components of vectors do.

    Raises:
        CaseError: Damaged, not a volume, or a header that promises more than the file holds.
    """
    if not path.stat().st_size:
        raise CaseError("the file is empty (0 bytes)")
    with _errors():
        reader = _reader(path)
        size = tuple(int(n) for n in reader.GetSize())
        dimension = len(size)
        spacing = np.array(reader.GetSpacing())
        directions = np.array(reader.GetDirection()).reshape(dimension, dimension)
        origin = np.array(reader.GetOrigin())
        channels = int(reader.GetNumberOfComponents())
        dtype = _dtype(reader.GetPixelID())
        segments = _segments({key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()})
    if dimension == 4 and 1 in (size[3], channels):
        channels *= size[3]
        size, spacing, directions = size[:3], spacing[:3], directions[:3, :3]
        origin, dimension = origin[:3], 3
    if dimension != 3:
        raise CaseError(f"the file has {dimension} axes {size}; volumes of 3 axes can be read")
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = origin
    with path.open("rb") as file:
        text = file.read(_HEADER)
    compressed = bool(_COMPRESSED.search(text))
    result = VolumeHeader(
        path,
        (size[0], size[1], size[2]),
        _LPS_TO_RAS @ affine,
        dtype,
        channels,
        compressed,
        segments=segments,
        reader="SimpleITK",
    )
    detached = path.suffix.lower() in (".nhdr", ".mhd")
    files = [p for p in path.parent.iterdir() if p.is_file()] if detached else [path]
    begin = _BEGIN.search(text)
    size_of_header = begin.end() if begin and not detached else 0
    check_header(result, sum(file.stat().st_size for file in files) - size_of_header)
    return result


def read_volume(header: VolumeHeader, channel: int) -> np.ndarray:
    """Read all voxels of a channel as stored, (I, J, K).

    Raises:
        CaseError: The file is truncated or damaged.
    """
    import SimpleITK

    with _errors():
        image = _reader(header.path).Execute()
        data = SimpleITK.GetArrayFromImage(image)
    if header.channels > 1:
        data = data[..., channel] if image.GetNumberOfComponentsPerPixel() > 1 else data[channel]
    return data.reshape(header.shape[::-1]).T


def _reader(path: Path) -> Any:
    try:
        import SimpleITK
    except ModuleNotFoundError as error:
        raise CaseError(
            f"{path.suffix} files need SimpleITK; pip install 'medseg-gym[data]'"
        ) from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def _dtype(pixel: int) -> np.dtype:
    import SimpleITK

    name = SimpleITK.GetPixelIDValueAsString(pixel).replace("vector of ", "")
    match = re.fullmatch(r"(\d+)-bit (signed integer|unsigned integer|float)", name)
    if not match:
        raise CaseError(f"voxels of type {name} are not numbers on a grey scale")
    kind = {"signed integer": "i", "unsigned integer": "u", "float": "f"}[match[2]]
    return np.dtype(f"{kind}{int(match[1]) // 8}")


def _segments(metadata: dict[str, str]) -> tuple[Segment, ...]:
    segments = []
    for key, name in metadata.items():
        match = re.fullmatch(r"(Segment\d+)_Name", key)
        if match:
            value = metadata.get(f"{match[1]}_LabelValue", "")
            layer = metadata.get(f"{match[1]}_Layer", "0")
            if not (value.isdigit() and layer.isdigit()):
                raise CaseError(f"{match[1]} ({name!r}) has value {value!r}, layer {layer!r}")
            segments.append(Segment(int(layer), int(value), name))
    return tuple(sorted(segments, key=lambda s: (s.channel, s.value)))


@contextmanager
def _errors() -> Iterator[None]:
    """Turn what SimpleITK raises on damaged files into CaseError."""
    try:
        yield
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise CaseError(f"SimpleITK cannot read it: {lines[-1] if lines else error}") from error
