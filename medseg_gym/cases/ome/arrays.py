"""Refuse arrays of Zarr that could run code or fill the memory, before anything opens them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from medseg_gym.cases.files.access.guards import check_voxels, read_json
from medseg_gym.cases.files.access.json_values import require_kind
from medseg_gym.cases.files.defects import Damaged

_SECOND_TYPES = re.compile(r"[<>|][iuf][1248]")
_THIRD_TYPES = re.compile(r"u?int(8|16|32|64)|float(16|32|64)")
_CODECS = {"blosc", "zlib", "gzip", "zstd", "lz4", "shuffle", "delta", "lzma", "bz2"}
_THIRD_CODECS = {"bytes", "blosc", "gzip", "zstd", "crc32c", "transpose", "sharding_indexed"}
"""Codecs that only unpack bytes. Others exist that load pickles, which run what they like."""


def check_array(path: Path, name: str) -> tuple[int, ...]:
    """Check the metadata of an array.

    Args:
        path: Its folder.
        name: Path relative to the root, for the error.

    Returns:
        Its shape.

    Raises:
        Damaged: They are missing or wrong, name a codec or a type that is not read, or announce
            too much.
    """
    if (path / ".zarray").exists():
        name = f"{name}/.zarray"
        meta = require_kind(read_json(path / ".zarray", name), dict, "the JSON", name)
        codecs = [meta.get("compressor"), *(meta.get("filters") or [])]
        _check_codecs([one for one in codecs if one], "id", _CODECS, name)
        _check_type(meta.get("dtype"), _SECOND_TYPES, name)
        chunks = meta.get("chunks")
    else:
        name = f"{name}/zarr.json"
        meta = require_kind(read_json(path / "zarr.json", name), dict, "the JSON", name)
        if meta.get("node_type") != "array":
            raise Damaged(name, f"is of type {meta.get('node_type')!r}, expected 'array'")
        _check_codecs(meta.get("codecs"), "name", _THIRD_CODECS, name)
        _check_type(meta.get("data_type"), _THIRD_TYPES, name)
        grid = require_kind(meta.get("chunk_grid"), dict, "'chunk_grid'", name)
        chunks = (grid.get("configuration") or {}).get("chunk_shape")
    shape = _lengths(meta.get("shape"), "shape", name)
    chunk = _lengths(chunks, "chunks", name)
    if len(chunk) != len(shape):
        raise Damaged(name, f"has {len(shape)} axes and chunks of {len(chunk)}")
    check_voxels(chunk, name, "chunks")
    return shape


def _check_codecs(codecs: Any, key: str, known: set[str], name: str) -> None:
    for codec in require_kind(codecs, list, "'codecs'", name):
        kind = codec.get(key) if isinstance(codec, dict) else codec
        if kind not in known:
            raise Damaged(name, f"has the codec {kind!r}; read are {', '.join(sorted(known))}")
        inner = (codec.get("configuration") or {}) if isinstance(codec, dict) else {}
        for nested in ("codecs", "index_codecs"):
            if kind == "sharding_indexed" and nested in inner:
                _check_codecs(inner[nested], key, known, name)


def _check_type(kind: Any, pattern: re.Pattern[str], name: str) -> None:
    if not isinstance(kind, str) or not pattern.fullmatch(kind):
        raise Damaged(name, f"has the type {kind!r}; whole and floating-point numbers are read")


def _lengths(value: Any, what: str, name: str) -> tuple[int, ...]:
    lengths = require_kind(value, list, repr(what), name)
    if not lengths or not all(type(one) is int and one > 0 for one in lengths):
        raise Damaged(name, f"{what!r} is {lengths}, expected lengths")
    return tuple(lengths)
