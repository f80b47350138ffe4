"""Defects of YOLO's data.yaml, label files and images."""

from __future__ import annotations

from pathlib import Path

from defect_corpus import Expected, defect
from defect_corpus.images import encoded, image, png_bomb

FIRST = "labels/train/a0.txt"
SQUARE = "0 0.2 0.2 0.6 0.2 0.6 0.6 0.2 0.6\n"
DATA = (
    "path: /content/somewhere\ntrain: images/train\nval: images/val\nnames: {0: lung, 1: heart}\n"
)


def write(root: Path, first: bytes | None = None, data: str = DATA) -> None:
    """Three images with a lung each in `train`, one in `val`; `first` is the first label file."""
    for split, count in (("train", 3), ("val", 1)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for number in range(count):
            (root / f"images/{split}/a{number}.png").write_bytes(encoded(image(number)))
            (root / f"labels/{split}/a{number}.txt").write_text(SQUARE)
    if first is not None:
        (root / FIRST).write_bytes(first)
    (root / "data.yaml").write_text(data)


def lines(name: str, first: bytes, cause: str, path: str = FIRST, note: bool = False) -> None:
    """Register a defect of the first label file; its case is lost."""

    def make(root: Path) -> Expected:
        write(root, first)
        return Expected(path, cause, healthy=3, note=note)

    defect("yolo", name)(make)


lines("two-corners", b"0 0.1 0.1 0.2 0.2 0.3\n", "line 1: a polygon has an odd number of coord")
lines("one-corner", b"0 0.1 0.1\n", "a polygon has 1 corners; three are needed")
lines("odd", b"0 0.1 0.1 0.2 0.2 0.3 0.1 0.5\n", "odd number of coordinates")
lines("pixels", b"0 1 1 9 1 9 9\n", "has 9, which is no fraction of the image")
lines("negative", b"0 -0.1 0.1 0.4 0.1 0.4 0.4\n", "has -0.1, which is no fraction")
lines("nan", b"0 nan 0.1 0.4 0.1 0.4 0.4\n", "nan, expected a finite number")
lines("infinite", b"0 inf 0.1 0.4 0.1 0.4 0.4\n", "inf, expected a finite number")
lines("a-word", b"0 0.1 0.1 0.4 x 0.4 0.4\n", "has 'x', expected a number")
lines("class-a-word", b"lung 0.1 0.1 0.4 0.1 0.4 0.4\n", "begins with 'lung', expected a class")
lines("class-fraction", b"0.5 0.1 0.1 0.4 0.1 0.4 0.4\n", "begins with '0.5', expected a class")
lines("unknown-class", b"7 0.1 0.1 0.4 0.1 0.4 0.4\n", r"class 7 is none of 'names' \(0: lung, 1")
lines("not-utf8", b"0 0.1 \xff\xfe", "is not UTF-8 text")
lines("thin", b"0 0.1 0.1 0.4 0.1 0.2 0.1\n", "covers the centre of no pixel")
lines("box", b"0 0.5 0.5 0.1 0.1\n", "box and without an outline", "", note=True)
lines("empty", b"", "images without an object", "", note=True)


@defect("yolo", "missing-folder")
def _(root: Path) -> Expected:
    write(root, data=DATA + "test: images/test\n")
    return Expected("data.yaml", "test: 'images/test' is no folder or list", healthy=4)


@defect("yolo", "no-label-file")
def _(root: Path) -> Expected:
    write(root)
    (root / FIRST).unlink()
    return Expected("", "images without a label file", healthy=3, note=True)


@defect("yolo", "image-bomb")
def _(root: Path) -> Expected:
    write(root)
    (root / "images/train/a0.png").write_bytes(png_bomb())
    return Expected("images/train/a0.png", "60000 x 60000|decompression bomb", healthy=3)


@defect("yolo", "listed-image-missing")
def _(root: Path) -> Expected:
    write(root, data=DATA.replace("images/train", "train.txt"))
    names = [f"./images/train/a{number}.png\n" for number in range(4)]
    (root / "train.txt").write_text("".join(names))
    (root / "labels/train/a3.txt").write_text(SQUARE)
    return Expected("labels/train/a3.txt", "'images/train/a3.png': the file is missing", healthy=4)


@defect("yolo", "kept-fields-damaged")
def _(root: Path) -> Expected:
    write(root)
    (root / "medseg_gym").mkdir()
    (root / "medseg_gym/train.json").write_text('{"labels": {"labels/train/a0.txt": 3}}')
    return Expected("medseg_gym/train.json", "is the number 3, expected an object", healthy=4)
