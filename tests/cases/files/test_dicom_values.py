"""Ordinary values of a header are pydicom's own, whatever their bytes."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pydicom")

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from medseg_gym.cases.dicom.plain_values import _TYPES, PlainHeader

_NUMBERS = st.from_regex(rb"\A[ ]?[-+]?[0-9]{0,11}(\.[0-9]{0,6})?([eE][-+]?[0-9])?[ ]?\Z")
_VALUES = st.one_of(
    st.binary(max_size=8),
    st.text("0123456789.AaZ_- \\\0é", max_size=12).map(lambda text: text.encode("latin-1")),
    st.lists(_NUMBERS, max_size=7).map(b"\\".join),
    st.sampled_from([b"CT", b"MR ", b"1.2.840.1\0", b"0\\0\\3 ", b"12", b"1_0", b"nan\\1", b""]),
)


def header(keyword: str, value: bytes, kind: str | None, little: bool) -> Dataset:
    tag, data = Tag(tag_for_keyword(keyword) or 0), Dataset()
    data[tag] = RawDataElement(tag, kind, len(value), value, 0, kind is None, little)
    return data


def read(ask):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ask()
    except Exception as error:
        return type(error)


@given(
    st.sampled_from(sorted(_TYPES)), _VALUES, st.sampled_from(["own", "implicit"]), st.booleans()
)
def test_a_value_is_what_pydicom_makes_of_it(keyword, value, written, little):
    kind = _TYPES[keyword] if written == "own" else None
    quick = read(lambda: PlainHeader(header(keyword, value, kind, little)).get(keyword))
    plain = read(lambda: header(keyword, value, kind, little).get(keyword))
    if isinstance(quick, list):  # of DS, where pydicom has a list type of its own
        assert quick == [float(number) for number in plain]
    else:
        assert quick == plain


def test_another_type_than_usual_and_what_is_not_there_are_left_to_pydicom():
    odd = PlainHeader(header("Rows", b"512 ", "IS", True))
    assert odd.get("Rows") == 512 and "Rows" in odd and "Columns" not in odd
    assert odd.get("Columns") is None and odd.get("Columns", 7) == 7 and odd.file_meta == {}
