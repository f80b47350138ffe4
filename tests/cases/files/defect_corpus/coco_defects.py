"""Defects of COCO files and of the images beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from defect_corpus import Expected, defect
from defect_corpus.images import encoded, image, png_bomb

TRAIN = "annotations/instances_train.json"
SQUARE = [5.0, 4.0, 15.0, 4.0, 15.0, 12.0, 5.0, 12.0]
RUNS = {"size": [20, 24], "counts": [104, 8, 368]}


def write(root: Path, spoil: Callable[[dict[str, Any]], object] = lambda document: None) -> None:
    """Three images with a lung each in `train`, one in `val`; `spoil` gets the training JSON."""
    for split, count in (("train", 3), ("val", 1)):
        document: dict[str, Any] = {
            "images": [
                {"id": n, "file_name": f"a{n}.png", "height": 20, "width": 24} for n in range(count)
            ],
            "annotations": [
                {"id": n, "image_id": n, "category_id": 1, "segmentation": [SQUARE], "iscrowd": 0}
                for n in range(count)
            ],
            "categories": [{"id": 1, "name": "lung"}],
        }
        (root / split).mkdir(parents=True)
        for number in range(count):
            (root / split / f"a{number}.png").write_bytes(encoded(image(number)))
        if split == "train":
            spoil(document)
        file = root / f"annotations/instances_{split}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(document))


def spoiled(
    name: str, spoil: Callable[[dict[str, Any]], object], cause: str, **expected: Any
) -> None:
    """Register a defect of the training JSON; by default one of four cases is lost."""

    def make(root: Path) -> Expected:
        write(root, spoil)
        return Expected(**{"path": TRAIN, "cause": cause, "healthy": 3, **expected})

    defect("coco", name)(make)


def first(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["annotations"][0].update(fields)


def outline(*coordinates: Any) -> Callable[[dict[str, Any]], object]:
    return first(segmentation=[list(coordinates)])


def runs(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return first(segmentation={**RUNS, **fields})


spoiled("two-corners", outline(1, 1, 9, 9), r"annotations\[0\]: a polygon has 2 corners")
spoiled("odd-coordinates", outline(1, 1, 9, 9, 3, 1, 4), "odd number of coordinates")
spoiled("nan", outline(1, 1, 9, float("nan"), 3, 1), "coordinate is nan, expected a finite")
spoiled("coordinate-a-text", outline(1, 1, 9, "9", 3, 1), "coordinate is '9', expected a number")
spoiled("coordinate-huge", outline(1, 1, 9, 10**400, 3, 1), "expected a finite number")
spoiled("outside", outline(30, 4, 40, 4, 40, 12), r"lies outside of its image \(24 x 20\)")
spoiled("far-corner", outline(1, 1, 9e9, 9, 3, 12), "over 10 images away")
spoiled("thin", outline(1, 1, 9, 1, 9, 1), "covers the centre of no pixel")
spoiled("polygon-a-number", first(segmentation=[7]), "a polygon is '7', expected a list")
spoiled("segmentation-a-text", first(segmentation="x"), "'segmentation' is a text")
spoiled("unknown-category", first(category_id=8), "category_id 8 is no category; there are 1: lung")
spoiled("unknown-image", first(image_id=99), "image_id 99 is none of the 3 images")
spoiled("no-category", lambda d: d["annotations"][0].pop("category_id"), "'category_id' is missing")
spoiled("runs-of-other-size", runs(size=[24, 20]), "of 20 x 24 pixels, its image of 24 x 20")
spoiled("runs-too-short", runs(counts=[104, 8]), "are of 112 pixels; 24 x 20 are 480")
spoiled("runs-negative", runs(counts=[-5, 485]), "a run length is -5")
spoiled("runs-cut", runs(counts="X38<0000`"), "ends within a number")
spoiled("runs-cut-short", runs(counts="X38<00"), "run lengths are of")
spoiled("runs-no-text", runs(counts="é"), "'é', which is no run length")
spoiled("runs-without-size", runs(size=None), "'size' of the run lengths is null")
spoiled("runs-huge", runs(size=[10**6, 10**6]), "announces 1000000 x 1000000 pixels")
spoiled("second-annotation-id", first(id=1), "second annotation has the id 1", healthy=3)
spoiled(
    "second-image-id",
    lambda d: d["images"].append(d["images"][0]),
    r"images\[3\]: a second entry of images has the id 0",
    healthy=4,
)
spoiled(
    "second-category-id",
    lambda d: d["categories"].append({"id": 1, "name": "liver"}),
    "second entry of categories has the id 1",
    healthy=4,
)
spoiled("category-nameless", lambda d: d["categories"][0].pop("name"), "'name' is null", healthy=1)
spoiled("annotation-a-list", lambda d: d["annotations"].insert(0, []), "is an array", healthy=4)
spoiled("no-categories", lambda d: d.pop("categories"), "'categories' is missing", healthy=1)
spoiled("images-a-number", lambda d: d.update(images=3), "'images' is the number 3", healthy=1)
spoiled("missing-image", lambda d: d["images"][0].update(file_name="gone.png"), "'gone.png' is")
spoiled("escapes", lambda d: d["images"][0].update(file_name="../../x.png"), "points outside")
spoiled("other-size", lambda d: d["images"][0].update(height=30), "24 x 30 pixels, but it")
spoiled("size-a-text", lambda d: d["images"][0].update(height="tall"), "height is 'tall'")
spoiled("extra-a-list", first(medseg_gym=[1]), "'medseg_gym' is an array")
spoiled("extra-spacing", first(medseg_gym={"spacing": "wide"}), "fields that a writer kept")
spoiled("cut", outline(-9, 4, 15, 4, 15, 12), "cut at the border", healthy=4, note=True)
spoiled("crowd", first(iscrowd=1), "crowds, iscrowd 1", healthy=3, note=True, path="")
spoiled("neither", first(segmentation=[]), "neither 'segmentation' nor a 'bbox'")
spoiled(
    "box",
    first(segmentation=[], bbox=[1, 2, 3, 4]),
    "without an outline",
    healthy=3,
    note=True,
    path="",
)


def of_json(name: str, content: bytes, cause: str) -> None:
    """Register a broken training JSON; only the validation case is left."""

    def make(root: Path) -> Expected:
        write(root)
        (root / TRAIN).write_bytes(content)
        return Expected(TRAIN, cause, healthy=1)

    defect("coco", name)(make)


of_json("json-broken", b'{"images": [{"id": ', "broken JSON")
of_json("json-empty", b"", "empty \\(0 bytes\\)")
of_json("json-not-utf8", b'{"images": ["\xff\xfe"]}', "not UTF-8")
of_json("json-nested", b'{"images": ' + b"[" * 200_000, "nested too deeply")


@defect("coco", "two-images-of-one-name")
def _(root: Path) -> Expected:
    write(root)
    (root / "train/a0.png").rename(root / "a0.png")
    (root / "other").mkdir()
    (root / "other/a0.png").write_bytes(encoded(image(7)))
    return Expected(TRAIN, "'a0.png' may be any of 2", healthy=3)


@defect("coco", "image-bomb")
def _(root: Path) -> Expected:
    write(root)
    (root / "train/a0.png").write_bytes(png_bomb())
    return Expected("train/a0.png", "announces 60000 x 60000|decompression bomb", healthy=3)


@defect("coco", "stray-image")
def _(root: Path) -> Expected:
    write(root)
    (root / "train/x.png").write_bytes(encoded(image()))
    return Expected("", "images that no annotation file names", healthy=4, note=True)


@defect("coco", "words-for-nothing")
def _(root: Path) -> Expected:
    write(root)
    return Expected("", "has words for 'lng'.*'lung'", healthy=4, options="?labels=lng:left lung")
