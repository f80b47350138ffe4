"""Ordinary values of a DICOM header, without the general machinery that reads all of them.

pydicom takes about 40 microseconds to make an element of the bytes that it has read, and a header
is asked for 15 of them: more than half of the time of a file. Nearly all are a few letters, digits
or a whole number; those are read here, and everything else (other characters, empty or several
values where there should be one, sequences, an unexpected type) is left to pydicom.
"""

from __future__ import annotations

import re
from typing import Any

_UID = re.compile(rb"([0-9.]+)[\0 ]?")
_CODE = re.compile(rb"([A-Z0-9_]+)[\0 ]?")
_NAME = re.compile(rb"([A-Za-z0-9_.-]+) ?")
_WHOLE = re.compile(rb" ?(-?[0-9]{1,9}) ?")
_DECIMALS = re.compile(rb" ?-?[0-9]{1,9}(\.[0-9]*)?(\\-?[0-9]{1,9}(\.[0-9]*)?)+ ?")

_TEXTS = {"UI": _UID, "CS": _CODE, "LO": _NAME}
_TYPES = {
    **dict.fromkeys(
        ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"), "UI"
    ),
    "FrameOfReferenceUID": "UI",
    "Modality": "CS",
    "PhotometricInterpretation": "CS",
    "PatientID": "LO",
    **dict.fromkeys(("InstanceNumber", "NumberOfFrames"), "IS"),
    **dict.fromkeys(("Rows", "Columns", "SamplesPerPixel", "BitsAllocated"), "US"),
    **dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"), "DS"),
}


class PlainHeader:
    """A header of which ordinary values are read quickly; the others are pydicom's.

    Args:
        dataset: Of pydicom, as it was read from a file.
    """

    def __init__(self, dataset: Any) -> None:
        from pydicom.datadict import tag_for_keyword
        from pydicom.dataelem import RawDataElement

        self.dataset = dataset
        self._tag, self._raw = tag_for_keyword, RawDataElement

    @property
    def file_meta(self) -> Any:
        """The file meta information; an empty mapping without."""
        return getattr(self.dataset, "file_meta", {})

    def __contains__(self, keyword: str) -> bool:
        return self._tag(keyword) in self.dataset

    def get(self, keyword: str, default: Any = None) -> Any:
        """Return a value as `pydicom.Dataset.get` does, of plain Python types where it is plain."""
        tag, kind = self._tag(keyword), _TYPES.get(keyword)
        if tag not in self.dataset:
            return default
        if kind is not None:
            element = self.dataset.get_item(tag)
            if isinstance(element, self._raw) and element.VR in (kind, None) and element.value:
                value = _plain(kind, element)
                if value is not None:
                    return value
        return self.dataset.get(keyword, default)


def _plain(kind: str, element: Any) -> Any:
    """Return the value of a raw element; None where pydicom must say what it is."""
    data: bytes = element.value
    if kind == "US":
        order = "little" if element.is_little_endian else "big"
        return int.from_bytes(data, order) if len(data) == 2 else None  # type: ignore[arg-type]
    if kind == "IS":
        whole = _WHOLE.fullmatch(data)
        return int(whole[1]) if whole else None
    if kind == "DS":
        return [float(one) for one in data.split(b"\\")] if _DECIMALS.fullmatch(data) else None
    text = _TEXTS[kind].fullmatch(data)
    return text[1].decode("ascii") if text else None
