"""Defects of LabelMe's JSON files and of the images beside them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from defect_corpus import Expected, defect
from defect_corpus.images import encoded, image, png_bomb

FIRST = "train/a0.json"
SQUARE = [[5.0, 4.0], [15.0, 4.0], [15.0, 12.0], [5.0, 12.0]]


def write(root: Path, spoil: Callable[[dict[str, Any]], object] = lambda document: None) -> None:
    """Three images with a lung each in `train`, one in `val`; `spoil` gets the first JSON."""
    for split, count in (("train", 3), ("val", 1)):
        (root / split).mkdir(parents=True)
        for number in range(count):
            (root / split / f"a{number}.png").write_bytes(encoded(image(number)))
            document: dict[str, Any] = {
                "version": "5.4.1",
                "flags": {},
                "shapes": [{"label": "lung", "points": SQUARE, "shape_type": "polygon"}],
                "imagePath": f"a{number}.png",
                "imageData": None,
                "imageHeight": 20,
                "imageWidth": 24,
            }
            if (split, number) == ("train", 0):
                spoil(document)
            (root / split / f"a{number}.json").write_text(json.dumps(document))


def spoiled(name: str, spoil: Callable[[dict[str, Any]], object], cause: str, **other: Any) -> None:
    """Register a defect of the first JSON, whose case is lost."""

    def make(root: Path) -> Expected:
        write(root, spoil)
        return Expected(**{"path": FIRST, "cause": cause, "healthy": 3, **other})

    defect("labelme", name)(make)


def shape(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["shapes"][0].update(fields)


def masked(content: bytes | str, *points: list[int]) -> Callable[[dict[str, Any]], object]:
    text = content if isinstance(content, str) else base64.b64encode(content).decode()
    return shape(shape_type="mask", points=list(points) or [[5, 4], [7, 6]], mask=text)


PART = encoded(np.full((3, 3), 1, np.uint8))

spoiled("two-corners", shape(points=SQUARE[:2]), r"shapes\[0\]: a polygon has 2 corners")
spoiled("point-of-three", shape(points=[[1, 2, 3]]), r"a point is '\[1, 2, 3\]', expected \[x, y\]")
spoiled("points-a-text", shape(points="x"), "its points are 'x', expected a list")
spoiled("nan", shape(points=[*SQUARE, [float("nan"), 1]]), "coordinate is nan, expected a finite")
spoiled("coordinate-null", shape(points=[*SQUARE, [None, 1]]), "coordinate is 'None', expected a n")
spoiled("outside", shape(points=[[x + 50, y] for x, y in SQUARE]), "lies outside of its image")
spoiled("thin", shape(points=[[1, 1], [9, 1], [5, 1]]), "covers the centre of no pixel")
spoiled("unknown-type", shape(shape_type="spline"), "shape_type 'spline' is none of polygon")
spoiled("label-null", shape(label=None), "'label' is null, expected words")
spoiled("circle-of-one-point", shape(shape_type="circle", points=[[3, 3]]), "has 1 points, expecte")
spoiled("circle-of-no-size", shape(shape_type="circle", points=[[3, 3]] * 2), "no radius")
spoiled("shape-a-list", lambda d: d["shapes"].__setitem__(0, []), "is an array, expected an object")
spoiled("shapes-an-object", lambda d: d.update(shapes={}), "'shapes' is an object, expected an arr")
spoiled("mask-missing", shape(shape_type="mask", points=SQUARE[:2]), "'mask' is null, expected a P")
spoiled("mask-no-base64", masked("%%"), "'mask' is no base64")
spoiled("mask-no-image", masked(b"<html>"), "is not an image")
spoiled(
    "mask-leaves", masked(PART, [22, 18], [24, 20]), r"3 x 3 pixels at \(22, 18\) leaves the im"
)
spoiled("mask-bomb", masked(png_bomb()), "60000 x 60000|decompression bomb")
spoiled("missing-image", lambda d: d.update(imagePath="gone.png"), "'gone.png' is missing")
spoiled("image-null", lambda d: d.update(imagePath=None), "'imagePath' is null, expected a file")
spoiled(
    "other-size", lambda d: d.update(imageHeight=24, imageWidth=20), "20 x 24 pixels, but it is"
)
spoiled(
    "size-a-text", lambda d: d.update(imageWidth="wide"), "imageWidth is 'wide', expected a num"
)
spoiled("size-negative", lambda d: d.update(imageWidth=-3), "imageWidth is -3, expected a whole")
spoiled("kept-a-text", lambda d: d.update(medseg_gym="x"), "'medseg_gym' is a text")
spoiled("line", shape(shape_type="line"), "which have no area", path="", note=True)
spoiled("box", shape(shape_type="rectangle", points=SQUARE[::2]), "boxes=1 fi", path="", note=True)
spoiled("nothing", lambda d: d["shapes"].clear(), "images without an object", path="", note=True)


def of_json(name: str, content: bytes, cause: str) -> None:
    """Register a broken first JSON."""

    def make(root: Path) -> Expected:
        write(root)
        (root / FIRST).write_bytes(content)
        return Expected(FIRST, cause, healthy=3)

    defect("labelme", name)(make)


of_json("json-broken", b'{"shapes": [{"label": ', "broken JSON")
of_json("json-empty", b"", "empty \\(0 bytes\\)")
of_json("json-utf16", '{"shapes": []}'.encode("utf-16")[:-1], "not UTF-8|broken JSON")
