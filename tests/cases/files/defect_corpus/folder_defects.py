"""Defects of folders of images and masks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from defect_corpus import Expected, defect
from defect_corpus.images import encoded, image, mask, png_bomb

POLYP = "?target=polyp"


def write(root: Path, masks: Callable[[], np.ndarray] = mask) -> None:
    """Three pairs, `images/a0.png` and `masks/a0.png` to a2."""
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for number in range(3):
        (root / f"images/a{number}.png").write_bytes(encoded(image(number)))
        (root / f"masks/a{number}.png").write_bytes(encoded(masks()))


def classes() -> np.ndarray:
    """(20, 24) uint8 with the values 0, 1 and 2."""
    drawn = np.zeros((20, 24), np.uint8)
    drawn[2:8, 2:8], drawn[10:18, 10:20] = 1, 2
    return drawn


def spoiled(
    name: str,
    spoil: Callable[[Path], object],
    path: str,
    cause: str,
    healthy: int = 2,
    options: str = POLYP,
    **flags: bool,
) -> None:
    """Register a defect of the three pairs."""

    def make(root: Path) -> Expected:
        write(root, classes if "labels=" in options or "instance" in options else mask)
        spoil(root)
        return Expected(path, cause, healthy, options, **flags)

    defect("folder", name)(make)


def put(file: str, content: Callable[[], bytes]) -> Callable[[Path], object]:
    return lambda root: (root / file).write_bytes(content())


def grey(*values: int) -> np.ndarray:
    return np.resize(np.array(values, np.uint8), (20, 24))


A0, M0 = "images/a0.png", "masks/a0.png"
INDEX = "?kind=index&labels=1:liver,2:spleen"
spoiled("missing-mask", lambda r: (r / M0).unlink(), A0, "the image has no mask")
spoiled("missing-image", lambda r: (r / A0).unlink(), M0, "the mask has no image")
spoiled(
    "same-name-twice", put("images/a0.jpg", lambda: encoded(image(), "JPEG")), A0, "same name", 3
)
spoiled("image-zero-bytes", put(A0, bytes), A0, "empty")
spoiled("mask-truncated", put(M0, lambda: encoded(mask())[:60]), M0, "[Tt]runcated|broken")
spoiled("image-bomb", put(A0, png_bomb), A0, "announces 60000|decompression bomb")
spoiled("mask-other-shape", put(M0, lambda: encoded(mask(24, 20))), M0, r"mask is \(24, 20\) but")
spoiled("mask-many-values", put(M0, lambda: encoded(grey(0, 9, 70))), M0, "3 values where a binary")
spoiled("mask-colour", put(M0, lambda: encoded(image(9))), M0, "is a colour image")
spoiled(
    "image-sixteen-bit",
    put(A0, lambda: encoded(np.full((20, 24), 900, np.uint16))),
    A0,
    "more than 8 bits.*add window=LOW,HIGH",
)
spoiled(
    "image-nan",
    lambda r: (
        (r / A0)
        .rename(r / "images/a0.tif")
        .write_bytes(encoded(np.full((20, 24), np.nan, np.float32), "TIFF"))
    ),
    "images/a0.tif",
    "NaN or infinite",
    options=POLYP + "&window=0,1",
)
spoiled(
    "value-without-name",
    put(M0, lambda: encoded(grey(0, 1, 2, 7))),
    M0,
    r"value 7 \(\d+ pixels\) has no name",
    healthy=6,
    options=INDEX,
)
spoiled("index-is-colour", put(M0, lambda: encoded(image(9))), M0, "see kind=color", 4, INDEX)
spoiled(
    "index-floating",
    lambda r: (
        (r / M0)
        .rename(r / "masks/a0.tif")
        .write_bytes(encoded(np.ones((20, 24), np.float32), "TIFF"))
    ),
    "masks/a0.tif",
    "floating point",
    4,
    INDEX,
)
spoiled("index-empty", put(M0, lambda: encoded(grey(0))), M0, "no value but 0", 4, INDEX, note=True)
spoiled(
    "instances-an-image",
    put(
        M0,
        lambda: encoded(np.arange(120 * 100, dtype=np.uint16).reshape(100, 120)),
    ),
    M0,
    "12000 different values",
    4,
    "?kind=instance&target=nucleus",
)
spoiled("no-image", put("images/notes.txt", lambda: b"x"), "images", "no image", 3, note=True)
spoiled(
    "fits-no-pattern",
    put("other.png", lambda: encoded(mask())),
    "",
    "fits neither pattern",
    3,
    POLYP + "&images=images/{name}.png&masks=masks/{name}.png",
    note=True,
)


@defect("folder", "fifo-for-mask")
def _(root: Path) -> Expected:
    write(root)
    (root / M0).unlink()
    os.mkfifo(root / M0)
    return Expected(M0, "is a FIFO", 2, POLYP)


@defect("folder", "links-that-multiply")
def _(root: Path) -> Expected:
    """Twelve folders of three links each: 3 ** 12 paths, were every link followed."""
    write(root)
    for depth in range(12):
        (root / f"d{depth}").mkdir()
        for link in "abc":
            (root / f"d{depth}" / link).symlink_to(root / f"d{depth + 1}")
    (root / "d12").mkdir()
    return Expected("d0/b", "a folder already listed", 3, POLYP, note=True)


@defect("folder", "root-in-a-loop")
def _(root: Path) -> Expected:
    write(root)
    (root / "images/up").symlink_to("..")
    return Expected("images/up", "symbolic link loop", 3, POLYP)


@defect("folder", "mask-unreadable")
def _(root: Path) -> Expected:
    write(root)
    (root / M0).chmod(0)
    return Expected(M0, "permission denied", 2, POLYP, unprivileged=True)


@defect("folder", "spaces-and-brackets")
def _(root: Path) -> Expected:
    write(root)
    (root / "images/[red] über 1 %?.png").write_bytes(encoded(image()))
    return Expected("images/[red] über 1 %?.png", "the image has no mask", 3, POLYP)


@defect("folder", "too-deep")
def _(root: Path) -> Expected:
    write(root)
    deep = root.joinpath(*"d" * 80)
    deep.mkdir(parents=True)
    return Expected("/".join("d" * 65), "more than 64 folders deep", 3, POLYP)
