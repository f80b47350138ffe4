"""Defects of CVAT's XML and of the images beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from defect_corpus import Expected, defect
from defect_corpus.images import encoded, image, png_bomb

TRAIN = "train.xml"
SQUARE = '<polygon label="lung" points="5.0,4.0;15.0,4.0;15.0,12.0;5.0,12.0" z_order="0"/>'
HEAD = '<?xml version="1.0" encoding="utf-8"?>\n'


def write(root: Path, first: str = SQUARE, head: str = HEAD, size: str = "") -> None:
    """Three images with a lung each in `train`, one in `val`; `first` is drawn on the first."""
    for split, count in (("train", 3), ("val", 1)):
        (root / "images" / split).mkdir(parents=True)
        text = head if split == "train" else HEAD
        text += "<annotations><version>1.1</version>"
        for number in range(count):
            is_first = (split, number) == ("train", 0)
            (root / f"images/{split}/a{number}.png").write_bytes(encoded(image(number)))
            sides = size if is_first and size else 'width="24" height="20"'
            text += f'<image id="{number}" name="a{number}.png" {sides}>'
            text += (first if is_first else SQUARE) + "</image>"
        (root / f"{split}.xml").write_text(text + "</annotations>", encoding="utf-8")


def drawn(name: str, first: str, cause: str, **other: Any) -> None:
    """Register a defect of what is drawn on the first image, whose case is lost."""

    def make(root: Path) -> Expected:
        write(root, first)
        return Expected(**{"path": TRAIN, "cause": cause, "healthy": 3, **other})

    defect("cvat", name)(make)


def polygon(points: str) -> str:
    return f'<polygon label="lung" points="{points}"/>'


def mask(rle: str, left: str = "5", top: str = "4", sides: str = 'width="3" height="2"') -> str:
    return f'<mask label="lung" rle="{rle}" left="{left}" top="{top}" {sides}/>'


ELLIPSE = '<ellipse label="lung" cx="9" cy="9" rx="{}" ry="3"/>'

drawn("two-corners", polygon("1,1;9,9"), "image 'a0.png', polygon 1: a polygon has 2 corners")
drawn("odd", polygon("1,1;9,9;3"), "'points' are no X,Y;X,Y")
drawn("nan", polygon("1,1;9,9;3,nan"), "coordinate is nan, expected a finite number")
drawn("a-word", polygon("1,1;9,9;3,x"), "coordinate is 'x', expected a number")
drawn("no-points", '<polygon label="lung"/>', "'points' is missing")
drawn("outside", polygon("30,1;40,9;30,9"), r"lies outside of its image \(24 x 20\)")
drawn("thin", polygon("1,1;9,1;5,1"), "covers the centre of no pixel")
drawn("no-label", '<polygon points="1,1;9,1;5,9"/>', "'label' is missing")
drawn("mask-too-short", mask("1, 2"), "are of 3 pixels; 3 x 2 are 6")
drawn("mask-negative", mask("-1, 7"), "run lengths are of 6 pixels; 3 x 2 are 6")
drawn("mask-a-word", mask("1, x"), "'rle' has something that is no whole number")
drawn("mask-leaves", mask("0, 6", left="22"), r"3 x 2 pixels at \(22, 4\) leaves the image")
drawn("mask-no-side", mask("0, 6", sides='width="3"'), "'height' is missing")
drawn("mask-side-zero", mask("", sides='width="0" height="0"'), "width is 0.0, expected a whole")
drawn("ellipse-flat", ELLIPSE.format(0), "radii 0 and 3")
drawn("ellipse-infinite", ELLIPSE.format("inf"), "rx is inf, expected a finite number")
drawn(
    "kept-no-json",
    '<polygon label="lung" points="1,1;9,1;5,9"><attribute name="medseg_gym">{'
    "</attribute></polygon>",
    "the attribute 'medseg_gym' is no JSON object",
)
drawn("line", '<polyline label="lung" points="1,1;2,2"/>', "no area", path="", note=True)
drawn("box", '<box label="lung" xtl="1" ytl="1" xbr="9" ybr="9"/>', "boxes=1", path="", note=True)
drawn("nothing", "", "images without an object", path="", note=True)


def of_xml(name: str, content: bytes, cause: str, healthy: int = 1) -> None:
    """Register a broken training XML; only the validation case is left."""

    def make(root: Path) -> Expected:
        write(root)
        (root / TRAIN).write_bytes(content)
        return Expected(TRAIN, cause, healthy)

    defect("cvat", name)(make)


of_xml("xml-broken", b"<annotations><image", "unclosed token|no element")
of_xml("xml-empty", b"", "empty \\(0 bytes\\)")
of_xml("xml-not-utf8", b"<annotations>\xff</annotations>", "not well-formed")
of_xml("video", b"<annotations><track id='0'/></annotations>", "is CVAT for video")
of_xml(
    "entities",
    b'<!DOCTYPE a [<!ENTITY x "xx"><!ENTITY y "&x;&x;">]><annotations>&y;</annotations>',
    "DTDForbidden|Forbidden",
)


@defect("cvat", "external-entity")
def _(root: Path) -> Expected:
    write(root, head=HEAD + '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]>')
    return Expected(TRAIN, "Forbidden", healthy=1)


@defect("cvat", "other-size")
def _(root: Path) -> Expected:
    write(root, size='width="20" height="24"')
    return Expected(TRAIN, "is 20 x 24 pixels, but it is 24 x 20", healthy=3)


@defect("cvat", "size-a-word")
def _(root: Path) -> Expected:
    write(root, size='width="wide" height="24"')
    return Expected(TRAIN, "width is 'wide', expected a number", healthy=3)


@defect("cvat", "missing-image")
def _(root: Path) -> Expected:
    write(root)
    (root / "images/train/a0.png").unlink()
    return Expected(TRAIN, "image 'a0.png': its image 'a0.png' is missing", healthy=3)


@defect("cvat", "image-bomb")
def _(root: Path) -> Expected:
    write(root)
    (root / "images/train/a0.png").write_bytes(png_bomb())
    return Expected("images/train/a0.png", "60000 x 60000|decompression bomb", healthy=3)
