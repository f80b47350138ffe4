"""Defects of data sets in the BiomedParse format."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from defect_corpus import Expected, defect
from defect_corpus.images import (
    animated_gif,
    encoded,
    flipped,
    image,
    mask,
    png_bomb,
    png_text_bomb,
)

FIRST = "Set/train/a_0_CT_chest.png"
FIRST_MASK = "Set/train_mask/a_0_CT_chest_lung.png"


def write(root: Path, spoil: Callable[[list[Any]], object] = lambda annotations: None) -> None:
    """Three cases in `Set/train` and one in `Set/test`; `spoil` gets the training annotations."""
    for split, count in (("train", 3), ("test", 1)):
        annotations: list[Any] = []
        for number in range(count):
            name = f"a_{number}_CT_chest"
            files = {f"{split}/{name}.png": image(number), f"{split}_mask/{name}_lung.png": mask()}
            for file, pixels in files.items():
                (root / "Set" / file).parent.mkdir(parents=True, exist_ok=True)
                (root / "Set" / file).write_bytes(encoded(pixels))
            annotations.append(
                {
                    "file_name": f"{name}.png",
                    "mask_file": f"{name}_lung.png",
                    "split": split,
                    "sentences": [{"sent": "lung in chest CT", "sent_id": number}],
                }
            )
        if split == "train":
            spoil(annotations)
        (root / "Set" / f"{split}.json").write_text(json.dumps({"annotations": annotations}))


def spoiled(name: str, spoil: Callable[[list[Any]], object], cause: str, **fields: Any) -> None:
    """Register a defect of the annotations; by default one of four cases is lost."""

    def make(root: Path) -> Expected:
        write(root, spoil)
        return Expected(**{"path": "Set/train.json", "cause": cause, "healthy": 3, **fields})

    defect("biomedparse", name)(make)


def replaced(name: str, file: str, content: Callable[[], bytes], cause: str) -> None:
    """Register a file with other content; one of four cases is lost."""

    def make(root: Path) -> Expected:
        write(root)
        (root / file).write_bytes(content())
        return Expected(file, cause, healthy=3)

    defect("biomedparse", name)(make)


def set_first(**fields: Any) -> Callable[[list[Any]], object]:
    return lambda annotations: annotations[0].update(fields)


spoiled(
    "no-file-name", lambda a: a[0].pop("file_name"), r"annotations\[0\].*'file_name' is missing"
)
spoiled("file-name-number", set_first(file_name=7), r"'file_name' is the number 7")
spoiled("mask-name-null", set_first(mask_file=None), r"'mask_file' is null")
spoiled("annotation-a-list", lambda a: a.__setitem__(0, []), r"annotations\[0\]: is an array")
spoiled("no-sentences", lambda a: a[0].pop("sentences"), r"'sentences' is missing")
spoiled("sentences-a-text", set_first(sentences="lung"), r"'sentences' is a text")
spoiled("sentences-empty", set_first(sentences=[]), r"'sentences' is empty")
spoiled("sentence-blank", set_first(sentences=[{"sent": "  "}]), r"sentences\[0\]: 'sent' is empty")
spoiled("sentence-number", set_first(sentences=[{"sent": 3}]), r"'sent' is the number 3")
spoiled("sentence-keyless", set_first(sentences=[{"raw": "x"}]), r"'sent' is missing")
spoiled(
    "one-sentence-of-two",
    set_first(sentences=[{"sent": "lung"}, ["lung"]]),
    r"sentences\[1\]: is an array",
    healthy=4,
)
spoiled("escapes-upwards", set_first(file_name="../../x.png"), "points outside of the data set")
spoiled("absolute-path", set_first(mask_file="/etc/hostname"), "points outside of the data set")
spoiled(
    "missing-mask", set_first(mask_file="gone.png"), r"'gone.png' under Set/train_mask/.*missing"
)
spoiled("missing-image", set_first(file_name="gone.png"), r"'gone.png' under .*train/.*missing")
spoiled("name-too-long", set_first(file_name="x" * 5000), r"file name too long")
spoiled("extra-wrong-type", set_first(medseg_gym=[1]), "'medseg_gym' is an array")
spoiled(
    "extra-bad-spacing",
    set_first(medseg_gym={"key": "k", "spacing": "wide"}),
    "fields that a writer kept",
)
spoiled(
    "duplicate-names",
    lambda a: a.append(a[0]),
    "a second case has the key",
    path=FIRST,
    healthy=4,
)
spoiled("other-split", set_first(split="test"), "says split 'test'", healthy=4, note=True)
spoiled(
    "repeated-sentence",
    set_first(sentences=[{"sent": "lung"}, {"sent": "lung"}]),
    "a sentence is repeated",
    healthy=4,
    note=True,
)

replaced("image-zero-bytes", FIRST, bytes, "empty \\(0 bytes\\)")
replaced("mask-zero-bytes", FIRST_MASK, bytes, "empty \\(0 bytes\\)")
replaced("image-truncated", FIRST, lambda: encoded(image())[:300], "[Tt]runcated|broken")
replaced("image-bit-flipped", FIRST, lambda: flipped(encoded(image()), -300), "broken|CRC|corrupt")
replaced("image-is-text", FIRST, lambda: b"<html>not found</html>", "is not an image")
replaced("mask-png-bomb", FIRST_MASK, png_bomb, "announces 60000 x 60000|decompression bomb")
replaced("image-text-bomb", FIRST, png_text_bomb, "[Dd]ecompressed|too large")
replaced("image-animated", FIRST, animated_gif, "several frames")
replaced("mask-other-shape", FIRST_MASK, lambda: encoded(mask(21, 24)), r"mask is \(21, 24\) but")
replaced("mask-colour", FIRST_MASK, lambda: encoded(image(5)), "colour image, not a binary mask")
replaced(
    "mask-floating",
    FIRST_MASK,
    lambda: encoded(np.full((20, 24), np.nan, np.float32), "TIFF"),
    "floating point",
)
replaced(
    "image-sixteen-bit",
    FIRST,
    lambda: encoded(np.full((20, 24), 900, np.uint16)),
    "more than 8 bits",
)
replaced(
    "image-transparent",
    FIRST,
    lambda: encoded(Image.new("RGBA", (24, 20), (9, 9, 9, 100))),
    "transparent",
)


def of_json(name: str, content: bytes, cause: str) -> None:
    """Register a broken training JSON; only the test case is left."""

    def make(root: Path) -> Expected:
        write(root)
        (root / "Set/train.json").write_bytes(content)
        return Expected("Set/train.json", cause, healthy=1)

    defect("biomedparse", name)(make)


of_json("json-broken", b'{"annotations": [{"file_name": ', "broken JSON")
of_json("json-empty", b"", "empty \\(0 bytes\\)")
of_json("json-not-utf8", b'{"annotations": ["\xff\xfe"]}', "not UTF-8")
of_json("json-a-list", b"[1, 2]", "is an array, expected an object")
of_json("json-other-keys", b'{"images": []}', "'annotations' is missing; the JSON has 'images'")
of_json("json-annotations-number", b'{"annotations": 3}', "'annotations' is the number 3")
of_json("json-nested", b'{"annotations": ' + b"[" * 200_000, "nested too deeply")


@defect("biomedparse", "json-missing")
def _(root: Path) -> Expected:
    write(root)
    (root / "Set/train.json").unlink()
    return Expected("Set/train", "annotations train.json are missing", healthy=1)


@defect("biomedparse", "non-ascii-and-spaces")
def _(root: Path) -> Expected:
    name = "größe ü 病 a.png"

    def spoil(annotations: list[Any]) -> None:
        annotations[0].update(file_name=name, mask_file=name)

    write(root, spoil)
    (root / "Set/train" / name).write_bytes(encoded(image()))
    return Expected("Set/train.json", f"'{name}' under Set/train_mask/.*missing", healthy=3)


@defect("biomedparse", "symlink-loop")
def _(root: Path) -> Expected:
    write(root)
    (root / "Set/again").symlink_to(root, target_is_directory=True)
    return Expected("Set/again", "symbolic link loop", healthy=4)


@defect("biomedparse", "symlink-to-itself")
def _(root: Path) -> Expected:
    write(root)
    (root / FIRST).unlink()
    (root / FIRST).symlink_to(root / FIRST)
    return Expected(FIRST, "symbolic links", healthy=3)


@defect("biomedparse", "symlink-dangling")
def _(root: Path) -> Expected:
    write(root)
    (root / FIRST_MASK).unlink()
    (root / FIRST_MASK).symlink_to(root / "nowhere.png")
    return Expected(FIRST_MASK, "cannot be followed", healthy=3)


@defect("biomedparse", "fifo-for-image")
def _(root: Path) -> Expected:
    write(root)
    (root / FIRST).unlink()
    os.mkfifo(root / FIRST)
    return Expected(FIRST, "is a FIFO", healthy=3)


@defect("biomedparse", "folder-for-mask")
def _(root: Path) -> Expected:
    write(root)
    (root / FIRST_MASK).unlink()
    (root / FIRST_MASK).mkdir()
    return Expected("Set/train.json", "is a folder, not a file", healthy=3)


@defect("biomedparse", "image-unreadable")
def _(root: Path) -> Expected:
    write(root)
    (root / FIRST).chmod(0)
    return Expected(FIRST, "permission denied", healthy=3, unprivileged=True)


@defect("biomedparse", "folder-unreadable")
def _(root: Path) -> Expected:
    write(root)
    (root / "Set/train").chmod(0)
    return Expected(
        "Set/train", "cannot be listed: permission denied", healthy=1, unprivileged=True
    )


@defect("biomedparse", "stray-files")
def _(root: Path) -> Expected:
    write(root)
    (root / "Set/train/unused.png").write_bytes(encoded(image()))
    return Expected("Set/train", "no annotation names", healthy=4, note=True)


@defect("biomedparse", "other-json")
def _(root: Path) -> Expected:
    write(root)
    (root / "Set/test_absent.json").write_text("{}")
    return Expected("Set", "not read: only train.json", healthy=4, note=True)


@defect("biomedparse", "group-in-two-splits")
def _(root: Path) -> Expected:
    write(root)
    return Expected("", "groups lie in more than one split", 4, "?group=/(a_)", note=True)


@defect("biomedparse", "group-matches-nothing")
def _(root: Path) -> Expected:
    write(root)
    return Expected("Set/train/a_2_CT_chest.png", "matches nothing", 3, "?group=a_([01])")
