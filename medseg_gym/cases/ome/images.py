"""Find images and their label images under a folder: OME-Zarr groups and OME-TIFFs."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg_gym.cases.files.access.walk import walk
from medseg_gym.cases.files.counts import Counts
from medseg_gym.cases.files.defects import Defect
from medseg_gym.cases.folder.pairing import UsualNames
from medseg_gym.cases.ome.ngff import groups, label_names, open_image
from medseg_gym.cases.ome.stack import Stack
from medseg_gym.cases.ome.tiff import SUFFIXES, open_tiff


@dataclass(frozen=True)
class OmeImage:
    """An image of a data set.

    Args:
        path: Relative to the root: a group of OME-Zarr or an OME-TIFF.
        label_files: The label images of an OME-TIFF.
    """

    path: str
    label_files: tuple[str, ...] = ()

    @property
    def is_tiff(self) -> bool:
        """Return whether it is a file and no group."""
        return self.path.lower().endswith(SUFFIXES)

    def label_names(self, root: Path) -> list[str]:
        """Return paths of its label images, relative to the root.

        Raises:
            Damaged: Their list cannot be read.
        """
        if self.is_tiff:
            return list(self.label_files)
        names = label_names(root / self.path, self.path)
        return [posixpath.normpath(posixpath.join(self.path, "labels", name)) for name in names]

    def open(self, root: Path, name: str, level: int) -> tuple[Stack, dict[str, Any]]:
        """Open the image or one of its label images; attributes are those of OME-Zarr.

        Raises:
            Damaged: It cannot be used.
        """
        if self.is_tiff:
            return open_tiff(root / name, name), {}
        return open_image(root / name, name, level)

    def target_of(self, label: str) -> str:
        """Return what the name of a label image calls its target; "" for a TIFF."""
        return "" if self.is_tiff else posixpath.basename(label)


def find_images(root: Path, counts: Counts) -> Iterator[OmeImage | Defect]:
    """List the images under a folder, or the one that it is, in order of their names.

    Args:
        root: The folder.
        counts: Takes the notes.

    Yields:
        Images, and Defects for labels without an image.
    """
    if root.is_file():
        yield Defect("", "is a file; give the folder that holds images and their labels")
        return
    stores: set[str] = set()
    for name in groups(root):
        stores.add(name)
        yield OmeImage(name)
    if stores == {""}:
        return
    naming = UsualNames()
    images: dict[str, str] = {}
    masks: dict[str, list[str]] = {}
    for path in walk(root):
        if isinstance(path, Defect):
            yield path
            continue
        if not path.lower().endswith(SUFFIXES) or any(_below(path, name) for name in stores):
            continue
        lower = path.lower()
        suffix = next(one for one in SUFFIXES if lower.endswith(one))
        role = naming.role(path[: -len(suffix)] + ".tif")
        if role is not None and role.mask:
            masks.setdefault(role.identity, []).append(path)
        elif role is not None:
            images.setdefault(role.identity, path)
    for identity, path in images.items():
        yield OmeImage(path, tuple(masks.pop(identity, ())))
    for names in masks.values():
        yield from (Defect(name, "the label image has no image") for name in names)


def newest(path: Path) -> Path:
    """Return the file that was written last: changing any file of a group makes it that one."""
    if not path.is_dir():
        return path
    latest, when = path, -1
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder) / name
            try:
                written = file.stat().st_mtime_ns
            except OSError:
                continue
            if written > when:
                latest, when = file, written
    return latest


def _below(path: str, name: str) -> bool:
    return path.startswith(f"{name}/")
