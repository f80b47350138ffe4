"""Defects of OME-Zarr and OME-TIFF."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr

from defect_corpus import Expected, defect

AXES = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space"} for n in "zyx")]
IMAGE, LABEL = "a.zarr", "a.zarr/labels/nuclei"


def pixels() -> tuple[np.ndarray, np.ndarray]:
    """(1, 2, 20, 24) uint8 noise and (2, 20, 24) labels: 1, and 2 on the second plane."""
    image = np.random.default_rng(0).integers(0, 256, (1, 2, 20, 24), dtype=np.uint8)
    labels = np.zeros((2, 20, 24), np.uint16)
    labels[:, 4:12, 5:15] = 1
    labels[1, 14:18, 5:15] = 2
    return image, labels


def save(folder: Path, array: np.ndarray, generation: int = 2) -> None:
    """Write an array; zarr 2, the newest for Python 3.10, knows one generation."""
    kind = {"zarr_format": generation} if zarr.__version__ >= "3" else {}
    made = zarr.open_array(str(folder), mode="w", shape=array.shape, dtype=array.dtype, **kind)
    made[...] = array


def store(
    folder: Path, array: np.ndarray, axes: list[Any], version: str = "0.4", **attributes: Any
) -> None:
    """Write a group of OME-Zarr with one resolution."""
    save(folder / "0", array, 2 if version == "0.4" else 3)
    scale = [0.5] * array.ndim
    dataset = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    ome = {"multiscales": [{"version": version, "axes": axes, "datasets": [dataset]}], **attributes}
    group(folder, ome, version)


def group(folder: Path, ome: dict[str, Any], version: str = "0.4") -> None:
    """Write the metadata of a group."""
    folder.mkdir(exist_ok=True, parents=True)
    if version == "0.4":
        (folder / ".zgroup").write_text('{"zarr_format": 2}')
        (folder / ".zattrs").write_text(json.dumps(ome))
    else:
        whole = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
        (folder / "zarr.json").write_text(json.dumps(whole))


def write(root: Path, version: str = "0.4") -> None:
    """Two images with two labelled planes each."""
    image, labels = pixels()
    for name in ("a", "b"):
        store(root / f"{name}.zarr", image, AXES, version)
        group(root / f"{name}.zarr/labels", {"labels": ["nuclei"]}, version)
        store(root / f"{name}.zarr/labels/nuclei", labels, AXES[1:], version)


def write_tiff(root: Path, labels: np.ndarray | None = None, **options: Any) -> None:
    """An OME-TIFF and its labels beside two of OME-Zarr."""
    write(root)
    image, own = pixels()
    file = {"metadata": {"axes": "ZYX"}, "ome": True, **options}
    tifffile.imwrite(root / "t.ome.tif", image[0], **file)
    tifffile.imwrite(root / "t_mask.ome.tif", own if labels is None else labels, **file)


def edited(name: str, file: str, edit: Callable[[Any], object], cause: str, **other: Any) -> None:
    """Register a defect of a JSON file of the first image; its two cases are lost."""

    def make(root: Path) -> Expected:
        write(root)
        content = json.loads((root / file).read_text())
        edit(content)
        (root / file).write_text(json.dumps(content))
        path = file.removesuffix("/.zattrs")
        return Expected(**{"path": path, "cause": cause, "healthy": 2, **other})

    defect("ome", name)(make)


def scales(**fields: Any) -> Callable[[Any], object]:
    return lambda content: content["multiscales"][0].update(fields)


ARRAY = f"{LABEL}/0/.zarray"
PICKLE = {"id": "pickle"}

edited(
    "no-scales", f"{IMAGE}/.zattrs", lambda c: c["multiscales"].clear(), "'multiscales' is empty"
)
edited(
    "datasets-a-text", f"{IMAGE}/.zattrs", scales(datasets="x"), "'datasets' is a text, expected"
)
edited("no-datasets", f"{IMAGE}/.zattrs", scales(datasets=[]), "has 0 resolutions; level=0")
edited("axes-unknown", f"{IMAGE}/.zattrs", scales(axes=["c", "q", "y", "x"]), "has the axes 'cqyx'")
edited(
    "axes-short", f"{IMAGE}/.zattrs", scales(axes=["y", "x"]), r"has 2 axes \(yx\) and an array o"
)
edited("escapes", f"{IMAGE}/.zattrs", scales(datasets=[{"path": "../b.zarr/0"}]), "points outside")
edited(
    "labels-a-text", f"{IMAGE}/labels/.zattrs", lambda c: c.update(labels="x"), "'labels' is a t"
)
edited(
    "label-of-nothing",
    f"{IMAGE}/labels/.zattrs",
    lambda c: c["labels"].append("gone"),
    "is no group of OME-Zarr",
    path=f"{IMAGE}/labels/gone",
    healthy=4,
)
edited("pickles", ARRAY, lambda c: c.update(filters=[PICKLE]), "has the codec 'pickle'; read are")
edited("objects", ARRAY, lambda c: c.update(dtype="|O"), r"has the type '\|O'; whole and floating")
edited("shape-a-text", ARRAY, lambda c: c.update(shape="x"), "'shape' is a text, expected")
edited(
    "shape-negative", ARRAY, lambda c: c["shape"].__setitem__(0, -2), "'shape' is .*expected len"
)
edited(
    "bomb",
    ARRAY,
    lambda c: c.update(shape=[2, 10**5, 10**5], chunks=[1, 10**5, 10**5]),
    "announces 1 x 100000 x 100000",
)
edited(
    "labels-smaller",
    ARRAY,
    lambda c: c["shape"].__setitem__(2, 20),
    "20 pixels along x, its im",
    path=LABEL,
)
edited(
    "kept-damaged",
    f"{LABEL}/.zattrs",
    lambda c: c.update(medseg_gym={"spacing": "x"}),
    "fields that a writer kept",
)


@defect("ome", "json-broken")
def _(root: Path) -> Expected:
    write(root)
    (root / IMAGE / ".zattrs").write_bytes(b'{"multiscales": [')
    return Expected(f"{IMAGE}/.zattrs", "broken JSON", healthy=2)


@defect("ome", "json-not-utf8")
def _(root: Path) -> Expected:
    write(root)
    (root / IMAGE / ".zattrs").write_bytes(b'"\xff"')
    return Expected(f"{IMAGE}/.zattrs", "not UTF-8", healthy=2)


@defect("ome", "array-missing")
def _(root: Path) -> Expected:
    write(root)
    (root / ARRAY).unlink()
    return Expected(f"{LABEL}/0/zarr.json", "the file is missing", healthy=2)


@defect("ome", "chunk-damaged")
def _(root: Path) -> Expected:
    write(root)
    chunk = next(
        file
        for file in (root / LABEL / "0").rglob("*")
        if file.name[0].isdigit() and file.is_file()
    )
    chunk.write_bytes(b"damaged")
    return Expected(LABEL, "t 0, c 0, z 0: ", healthy=2)


@defect("ome", "sixteen-bits")
def _(root: Path) -> Expected:
    write(root)
    store(root / IMAGE, pixels()[0].astype(np.uint16) * 9, AXES)
    return Expected(IMAGE, "more than 8 bits a sample", healthy=2)


@defect("ome", "two-channels")
def _(root: Path) -> Expected:
    write(root)
    store(root / IMAGE, np.repeat(pixels()[0], 2, axis=0), AXES)
    return Expected(IMAGE, "has 2 channels; choose with channel=0", healthy=2)


@defect("ome", "labels-floating")
def _(root: Path) -> Expected:
    write(root)
    store(root / LABEL, pixels()[1].astype(np.float32), AXES[1:])
    return Expected(LABEL, "is no label image: 1 channels of float32", healthy=2)


@defect("ome", "labels-negative")
def _(root: Path) -> Expected:
    write(root)
    store(root / LABEL, pixels()[1].astype(np.int16) - 1, AXES[1:])
    return Expected(LABEL, "has the label -1", healthy=2)


@defect("ome", "value-without-a-name")
def _(root: Path) -> Expected:
    write(root)
    own = {"image-label": {"properties": [{"label-value": 1, "name": "nucleus"}]}}
    store(root / LABEL, pixels()[1], AXES[1:], **own)
    return Expected(LABEL, "label 2 occurs and has no name; labels= names it", healthy=2)


@defect("ome", "without-labels")
def _(root: Path) -> Expected:
    write(root)
    group(root / IMAGE / "labels", {"labels": []})
    return Expected("", "images without labels", healthy=2, note=True)


@defect("ome", "labels-empty")
def _(root: Path) -> Expected:
    write(root)
    store(root / LABEL, pixels()[1] * 0, AXES[1:])
    return Expected("", "label images without a label above 0", healthy=2, note=True)


@defect("ome", "tiff-labels-smaller")
def _(root: Path) -> Expected:
    write_tiff(root, pixels()[1][:, :, :20])
    return Expected("t_mask.ome.tif", "20 pixels along x, its image 24", 4, "?target=nucleus")


@defect("ome", "tiff-without-xml")
def _(root: Path) -> Expected:
    write_tiff(root, ome=False)
    return Expected("t.ome.tif", "has no OME-XML", 4, "?target=nucleus")


@defect("ome", "tiff-without-a-name")
def _(root: Path) -> Expected:
    write_tiff(root)
    return Expected("t_mask.ome.tif", "nothing says what the labels show; give target=", 4)


@defect("ome", "tiff-without-image")
def _(root: Path) -> Expected:
    write_tiff(root)
    (root / "t.ome.tif").unlink()
    return Expected("t_mask.ome.tif", "the label image has no image", 4)


@defect("ome", "tiff-cut")
def _(root: Path) -> Expected:
    write_tiff(root)
    whole = (root / "t_mask.ome.tif").read_bytes()
    (root / "t_mask.ome.tif").write_bytes(whole[:60])
    return Expected("t_mask.ome.tif", r"\w+ \(\w+\)|has no OME-XML", 4, "?target=nucleus")
