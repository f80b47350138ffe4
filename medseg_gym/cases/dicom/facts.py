"""Facts from the header of a DICOM file, read up to its pixel data and kept as JSON."""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from medseg_gym.cases.dicom.codestream import codestream_size
from medseg_gym.cases.dicom.plain_values import PlainHeader
from medseg_gym.cases.dicom.planes import planes_of, spacing_of
from medseg_gym.cases.files import Damaged, check_pixels, decoding, require_file

Facts = dict[str, Any]
"""`kind` ("image", "seg", "rtstruct", "other", "foreign") and what `read_facts` lists."""

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
RT_STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"
RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
MAX_INFLATED = 1 << 28  # bytes of a deflated file, which pydicom inflates as a whole

_UNDEFINED = 0xFFFFFFFF  # length of encapsulated pixel data
_BEGIN = 1 << 16
_PIXELS = frozenset({0x7FE00010, 0x7FE00008, 0x7FE00009})
_META = 1 << 12  # bytes at the beginning of a file that hold the transfer syntax, if it has one
_WANTED = (
    "SOPClassUID SOPInstanceUID SeriesInstanceUID StudyInstanceUID PatientID FrameOfReferenceUID "
    "Modality InstanceNumber Rows Columns NumberOfFrames SamplesPerPixel BitsAllocated "
    "PhotometricInterpretation ImagePositionPatient ImageOrientationPatient PixelSpacing "
    "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence ReferencedSeriesSequence "
    "SegmentSequence SegmentationType MaximumFractionalValue StructureSetROISequence "
    "ReferencedFrameOfReferenceSequence SpecificCharacterSet"
).split()


def read_facts(path: Path, name: str) -> Facts:
    """Read the facts of one file.

    Args:
        path: The file.
        name: Its path relative to the root, for errors.

    Returns:
        `kind` alone for files that are not DICOM ("foreign") or neither image nor truth
        ("other"); else also `sop`, `series`, `study`, `patient`, `frame_of_reference`,
        `modality`, `number`, and for images and segmentations `rows`, `columns`, `frames`,
        `planes` (per frame: position, orientation and spacing, or None), `spacing`, and `whole`
        (a frame is best read together with the whole file).

    Raises:
        Damaged: The file cannot be used: unreadable, without pixel data, truncated, in a transfer
            syntax that no installed plugin decodes, larger than what is decoded, or with a
            geometry that is none.
    """
    require_file(path, name)
    with quiet(), decoding(name):
        dataset, length, left, begin = _read_header(path, name)
    if dataset is None or "SOPClassUID" not in dataset:
        return {"kind": "foreign"}
    with quiet(), decoding(name):
        facts = _facts(PlainHeader(dataset), length, left, name)
        if "frames" in facts and (size := codestream_size(begin)) is not None:
            if size != (facts["rows"], facts["columns"]):
                raise Damaged(
                    name,
                    f"its compressed image has {size[0]} x {size[1]} pixels, its header says "
                    f"{facts['rows']} x {facts['columns']}",
                )
        return facts


def _read_header(path: Path, name: str) -> tuple[Any, int | None, int, bytes]:
    """Return header, length of the pixel data (None without) and bytes of the file from there on.

    And the first of those bytes, where the pixel data are encapsulated.
    """
    from pydicom.filereader import read_partial

    lengths: list[int] = []

    def at_pixels(tag: Any, vr: str | None, length: int) -> bool:
        if tag in _PIXELS:
            lengths.append(length)
        return tag in _PIXELS

    with path.open("rb") as file:
        start = file.read(_META)
        if start[128:132] != b"DICM" and not _may_lack_a_preamble(start):
            return None, None, 0, b""
        file.seek(0)
        if DEFLATED.encode() in start:
            _require_small_when_inflated(path, name)
        header = read_partial(file, at_pixels, force=True, specific_tags=_wanted_tags())
        left = os.fstat(file.fileno()).st_size - file.tell()
        begin = file.read(_BEGIN) if lengths and lengths[0] == _UNDEFINED else b""
    return header, lengths[0] if lengths else None, left, begin


@lru_cache(maxsize=1)
def _wanted_tags() -> list[Any]:
    from pydicom.datadict import tag_for_keyword

    return [tag for keyword in _WANTED if (tag := tag_for_keyword(keyword)) is not None]


def _may_lack_a_preamble(start: bytes) -> bool:
    """Return whether a file begins as old ones do, with an element of group 2 or 8."""
    return start[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")


def _require_small_when_inflated(path: Path, name: str) -> None:
    from pydicom.filereader import read_file_meta_info

    try:
        syntax = read_file_meta_info(path).get("TransferSyntaxUID")
    except Exception:  # no file meta information: then it is not deflated
        return
    if syntax != DEFLATED:
        return
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    with path.open("rb") as file:
        file.seek(132)
        # The group length element says where the deflated part begins.
        head = file.read(12)
        file.seek(144 + int.from_bytes(head[8:12], "little"))
        total = 0
        while (chunk := file.read(1 << 16)) and not inflater.eof:
            while chunk:
                total += len(inflater.decompress(chunk, 1 << 20))
                chunk = inflater.unconsumed_tail
                if total > MAX_INFLATED:
                    raise Damaged(name, f"inflates to more than the {MAX_INFLATED} bytes read")


def _facts(header: PlainHeader, length: int | None, left: int, name: str) -> Facts:
    sop_class = str(header.get("SOPClassUID"))
    if sop_class == RT_STRUCTURES:
        kind = "rtstruct"
    elif sop_class in SEGMENTATIONS:
        kind = "seg"
    elif sop_class == RT_DOSE or not (length is not None or _is_image(header)):
        return {"kind": "other"}
    else:
        kind = "image"
    facts: Facts = {
        "kind": kind,
        "sop": str(header.get("SOPInstanceUID", "")),
        "series": str(header.get("SeriesInstanceUID", "")),
        "study": str(header.get("StudyInstanceUID", "")),
        "patient": str(header.get("PatientID", "") or ""),
        "frame_of_reference": str(header.get("FrameOfReferenceUID", "") or ""),
        "modality": str(header.get("Modality", "") or ""),
        "number": int(header.get("InstanceNumber", 0) or 0),
    }
    if not (facts["sop"] and facts["series"]):
        raise Damaged(name, "has no SOPInstanceUID or no SeriesInstanceUID")
    if kind == "rtstruct":
        return facts
    facts["rows"], facts["columns"] = int(header.get("Rows", 0)), int(header.get("Columns", 0))
    facts["frames"] = int(header.get("NumberOfFrames", 1) or 1)
    if length is None:
        raise Damaged(name, "has no pixel data")
    check_pixels(facts["rows"], facts["columns"], name)
    syntax = str(header.file_meta.get("TransferSyntaxUID", ""))
    facts["whole"] = facts["frames"] > 1 or syntax == DEFLATED
    _require_decodable(header, facts, syntax, length, left, name)
    facts["planes"] = planes_of(header, facts["frames"], name)
    facts["spacing"] = spacing_of(header, name)
    return facts


def _is_image(header: PlainHeader) -> bool:
    from pydicom.uid import UID

    return "Rows" in header or "Image Storage" in UID(str(header.get("SOPClassUID"))).name


def _require_decodable(
    header: PlainHeader, facts: Facts, uid: str, length: int, left: int, name: str
) -> None:
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    syntax = UID(uid)
    if syntax and syntax.is_private:
        raise Damaged(name, f"is in the private transfer syntax {syntax}")
    if syntax and not syntax.is_transfer_syntax:
        raise Damaged(name, f"is in transfer syntax {syntax}, which is not known")
    if not syntax or not syntax.is_compressed or syntax == DEFLATED:
        bits = int(header.get("BitsAllocated", 8)) * int(header.get("SamplesPerPixel", 1))
        if header.get("PhotometricInterpretation") == "YBR_FULL_422":
            bits = bits * 2 // 3
        needed = (facts["rows"] * facts["columns"] * facts["frames"] * bits + 7) // 8
        has = length if syntax == DEFLATED else min(length, left)
        if has < needed:
            raise Damaged(
                name, f"the pixel data are truncated: {needed} bytes are announced, {has} are there"
            )
        return
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise Damaged(name, f"is in transfer syntax {syntax.name}, which is not read") from None
    if not decoder.is_available:
        missing = "; ".join(decoder.missing_dependencies)
        raise Damaged(
            name,
            f"no installed plugin decodes {syntax.name} ({missing}); "
            "pip install 'medseg-gym[data]'",
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom's warnings on files that bend the standard but can be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
