"""Defects of whole slides and of the GeoJSON beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from defect_corpus import Expected, defect

FIRST = "a.geojson"
SQUARE = [[10, 10], [90, 10], [90, 90], [10, 90], [10, 10]]


def slide(path: Path, height: int = 200, width: int = 300, **options: Any) -> np.ndarray:
    """Write a pyramid of two levels in tiles, half a micrometre a pixel; return its pixels."""
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    how: dict[str, Any] = {"photometric": "rgb", "compression": "zlib", "tile": (64, 64)}
    how |= {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER", **options}
    with tifffile.TiffWriter(path) as file:
        file.write(image, **how)
        file.write(image[::2, ::2], subfiletype=1, **how)
    return image


def feature(points: Any = SQUARE, name: str = "Tumor", kind: str = "Polygon") -> dict[str, Any]:
    """A feature as QuPath exports it."""
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": [points]},
        "properties": {"objectType": "annotation", "classification": {"name": name}},
    }


def write(root: Path, *features: Any) -> np.ndarray:
    """Two slides with a square on the first tile of 128; features are those of the first slide."""
    (root / FIRST).write_text(
        json.dumps({"type": "FeatureCollection", "features": list(features) or [feature()]})
    )
    (root / "b.geojson").write_text(json.dumps([feature()]))
    slide(root / "b.tif")
    return slide(root / "a.tif")


def drawn(name: str, first: Any, cause: str, **other: Any) -> None:
    """Register a defect of the only feature on the first slide."""

    def make(root: Path) -> Expected:
        write(root, first)
        whole = {"path": FIRST, "cause": cause, "healthy": 1, "options": "?tile=128", **other}
        return Expected(**whole)

    defect("wsi", name)(make)


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in feature().items() if k != key}


drawn("two-corners", feature(SQUARE[:2]), r"features\[0\]: a polygon has 2 corners")
drawn("point-of-one", feature([[1], [2, 3], [4, 5]]), r"a point is '\[1\]', expected \[x, y\]")
drawn("nan", feature([[1, float("nan")], *SQUARE]), "a coordinate is nan, expected a finite")
drawn("a-word", feature([[1, "x"], *SQUARE]), "a coordinate is 'x', expected a number")
drawn("outside", feature([[x + 400, y] for x, y in SQUARE]), r"outside of its slide \(300 x 200\)")
drawn("ring-a-number", feature(7), "a ring is the number 7, expected an array")
drawn("no-rings", {**feature(), "geometry": {"type": "Polygon", "coordinates": []}}, "no corners")
drawn("unknown-geometry", feature(kind="Circle"), "a geometry is 'Circle', expected Polygon")
drawn("no-geometry", without("geometry"), "'geometry' is null, expected an object")
drawn("no-class", without("properties"), "its class is null; give it a classification")
drawn("class-a-number", feature(name=3), "its class is the number 3")  # type: ignore[arg-type]
drawn("feature-a-list", [], "is an array, expected an object")
drawn("points", feature(SQUARE, kind="MultiPoint"), "no area", path="", note=True)
drawn("small", feature([[1, 1], [4, 1], [4, 4]]), "under 20 pixels", path="", note=True)


def replaced(name: str, file: str, content: bytes, cause: str, **other: Any) -> None:
    """Register a file of the first slide with other content."""

    def make(root: Path) -> Expected:
        write(root)
        (root / file).write_bytes(content)
        return Expected(**{"path": file, "cause": cause, "healthy": 1, **other})

    defect("wsi", name)(make)


replaced("json-broken", FIRST, b'{"features": [', "broken JSON")
replaced("json-empty", FIRST, b"", "empty \\(0 bytes\\)")
replaced("json-not-utf8", FIRST, b'["\xff"]', "not UTF-8")
replaced("json-of-something", FIRST, b'{"a": 1}', "is no GeoJSON: neither 'features' nor")
replaced("slide-empty", "a.tif", b"", "empty \\(0 bytes\\)")
replaced("slide-no-tiff", "a.tif", b"<html>", "not a TIFF|TiffFileError")


def spoiled(name: str, spoil: Callable[[Path], object], expected: Expected) -> None:
    """Register a defect that is made of sound files."""

    def make(root: Path) -> Expected:
        write(root)
        spoil(root)
        return expected

    defect("wsi", name)(make)


def cut(root: Path) -> None:
    whole = (root / "a.tif").read_bytes()
    (root / "a.tif").write_bytes(whole[: len(whole) // 2])


def two_drawings(root: Path) -> None:
    for folder in ("x", "y"):
        (root / folder).mkdir()
        (root / folder / FIRST).write_text("[]")
    (root / FIRST).unlink()


spoiled("slide-cut", cut, Expected("a.tif", r"\(\w+\)$", 1))
spoiled(
    "slide-missing", lambda root: (root / "a.tif").unlink(), Expected(FIRST, "no slide has its", 1)
)
spoiled(
    "not-annotated",
    lambda root: (root / FIRST).unlink(),
    Expected("", "slides without a GeoJSON file", 1, note=True),
)
spoiled("two-drawings", two_drawings, Expected("a.tif", "2 files could be its annotations", 1))
spoiled(
    "no-resolution",
    lambda root: slide(root / "a.tif", resolution=None, resolutionunit=None),
    Expected("a.tif", "does not say its micrometres a pixel; give level=", 1, "?mpp=1"),
)
spoiled(
    "too-fine",
    lambda root: slide(root / "a.tif", resolution=(1000, 1000)),
    Expected("a.tif", "has 10 micrometres a pixel, not mpp=1", 1, "?mpp=1"),
)
spoiled(
    "one-strip",
    lambda root: tifffile.imwrite(
        root / "a.tif",
        shape=(9000, 9000),
        dtype="uint8",
        rowsperstrip=9000,
        compression="zlib",
        data=iter([np.zeros((9000, 9000), np.uint8)]),
    ),
    Expected("a.tif", "a tile of the file: announces 9000 x 9000", 1),
)
