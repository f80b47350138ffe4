"""NIfTI files (.nii, .nii.gz) through nibabel: headers, whole volumes, single slices."""

from __future__ import annotations

import gzip
import math
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from medseg_gym.cases.volumes.header import VolumeHeader, check_header
from medseg_gym.errors import CaseError

_MILLIMETRES = {"meter": 1000.0, "mm": 1.0, "micron": 0.001}  # unknown units are taken as mm


def read_header(path: Path) -> VolumeHeader:
    """Read the header of a NIfTI file.

    A fourth axis becomes channels, or the fifth that holds the components of vectors where the
    fourth (time) has one step. Where neither the sform nor the qform is set the axes are taken
    as nibabel takes them (left, front, up).

    Raises:
        CaseError: Not NIfTI, damaged, RGB or complex voxels, more than one axis beyond three, or a
            header that promises more than the file holds.
    """
    with _errors(path):
        image = _load(path)
        header = image.header
        shape = tuple(int(n) for n in header.get_data_shape())
        dtype = header.get_data_dtype()
        affine = np.array(image.affine, np.float64)
        unit = header.get_xyzt_units()[0]
        slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
        offset = int(image.dataobj.offset)
    if dtype.names:
        raise CaseError(
            f"the voxels are colours ({', '.join(dtype.names)}); volumes must have one grey value "
            "per voxel: convert it, or use folder: for colour images"
        )
    if len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) < 2 or sum(n != 1 for n in shape[3:]) > 1:
        raise CaseError(f"the file has {len(shape)} axes {shape}; 2, 3 or 4 can be read")
    if not (np.isfinite(slope) and np.isfinite(intercept)):
        raise CaseError(f"the header scales by {slope} and adds {intercept}: not finite")
    affine[:3] *= _MILLIMETRES.get(unit, 1.0)
    compressed = path.suffix.lower() != ".nii"
    result = VolumeHeader(
        path,
        (shape[0], shape[1], shape[2]),
        affine,
        dtype,
        math.prod(shape[3:]),
        compressed,
        slope,
        intercept,
    )
    check_header(result, path.stat().st_size - (0 if compressed else offset))
    return result


def read_volume(header: VolumeHeader, channel: int) -> np.ndarray:
    """Read all voxels of a channel as stored (not scaled), (I, J, K).

    Raises:
        CaseError: The file is truncated or damaged.
    """
    with _errors(header.path):
        data = _load(header.path).dataobj
        if header.channels > 1:
            return _unscaled(data, (slice(None),) * 3 + _beyond(data.shape, channel))
        return np.asarray(data.get_unscaled()).reshape(header.shape)


def read_slice(header: VolumeHeader, voxel_axis: int, index: int, channel: int) -> np.ndarray:
    """Read voxels at `index` along `voxel_axis` as stored (not scaled), 2-D in the file's order.

    Raises:
        CaseError: The file is truncated or damaged.
    """
    place: list[Any] = [slice(None)] * 3
    place[voxel_axis] = index
    with _errors(header.path):
        data = _load(header.path).dataobj
        if len(data.shape) == 2:
            volume = _unscaled(data, (slice(None),) * 2).reshape(header.shape)
            plane: np.ndarray = volume[tuple(place)]
            return plane
        return _unscaled(data, (*place, *_beyond(data.shape, channel)))


def _beyond(shape: tuple[int, ...], channel: int) -> tuple[int, ...]:
    """Return the index along the axes beyond three, of which one at most is longer than 1."""
    return tuple(channel if n > 1 else 0 for n in shape[3:])


def _unscaled(data: Any, place: tuple) -> np.ndarray:
    # fileslice reads only what the slice needs; the proxy's own [] would scale to float64.
    from nibabel.fileslice import fileslice
    from nibabel.openers import ImageOpener

    with ImageOpener(data.file_like) as file:
        values: np.ndarray = fileslice(file, place, data.shape, data.dtype, data.offset, order="F")
        return values


def _load(path: Path) -> Any:
    import nibabel

    if not path.stat().st_size:
        raise CaseError("the file is empty (0 bytes)")
    # Not mapped into memory: a mapped file that another program shortens kills the process.
    loaded = nibabel.load(path, mmap=False)
    if not isinstance(loaded, nibabel.Nifti1Pair | nibabel.Nifti2Pair):
        raise CaseError(f"{type(loaded).__name__} is not NIfTI")
    return loaded


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Turn what nibabel and zlib raise on damaged files into CaseError."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except CaseError:
        raise
    except EOFError as error:
        raise CaseError(f"the compressed file ends too early ({error}); copy it again") from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise CaseError(f"the compressed data are damaged ({error}); copy it again") from error
    except (ImageFileError, HeaderDataError, WrapStructError) as error:
        cause = str(error).replace(f'"{path}"', "it").replace(f"File {path}", "it")
        raise CaseError(f"not a readable NIfTI file: {cause}") from error
    except (OSError, ValueError, OverflowError, KeyError, TypeError) as error:
        raise CaseError(str(error) or type(error).__name__) from error
