"""A folder of images and labels as a datastore.

Image files lie in the folder itself, DICOM series there or in folders below, labels under
`labels/TAG/` with the name of their image, as MONAI Label keeps them. Nothing is deleted here, and
nothing overwritten: an image with a name that is taken is refused, and a label that is saved again
moves the earlier one to `labels/TAG/earlier/`.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from threading import RLock
from typing import Any

from medseg_gym.cases.volumes import volume_suffix
from medseg_gym.errors import MedSegError
from medseg_gym.serving.errors import ServiceError
from medseg_gym.serving.monailabel.dicom_series import DicomSeries
from medseg_gym.serving.monailabel.image_files import KINDS, kind_of, open_header
from medseg_gym.storage.atomic_write import atomic_path, atomic_write

FINAL = "final"
"""Tag of labels that a person has handed in."""

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ ()+-]{0,199}")
_TAG = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SEGMENTATION = ".seg.nrrd"


class StudyFolder:
    """Images and labels of a folder, seen by all owners; safe to use from several threads.

    Args:
        root: The folder; None holds nothing and takes nothing.
        max_voxels: Most of one image.

    Raises:
        MedSegError: There is no such folder.
    """

    def __init__(self, root: Path | None, max_voxels: int) -> None:
        self.root = None if root is None else Path(root)
        if self.root is not None and not self.root.is_dir():
            raise MedSegError(f"--studies {root}: there is no such folder")
        self.max_voxels = max_voxels
        self._lock = RLock()
        self._series = None if self.root is None else DicomSeries(self.root, max_voxels)

    # what is there -----------------------------------------------------------------------------
    def images(self) -> dict[str, Path]:
        """Return the images by id.

        The id of a file is its name without the ending, where that is unique; that of a DICOM
        series is its SeriesInstanceUID, whose path is the folder that it lies in.
        """
        if self.root is None or self._series is None:
            return {}
        with self._lock:
            return {**self._series.ids(), **_by_id(self.root)}

    def image(self, id: str) -> Path:
        """Return an image.

        Raises:
            ServiceError: 404.
        """
        return self._file_of(id, self._find(id))

    def _find(self, id: str) -> Path:
        """Return an image file, or the folder of a series; 404."""
        path = self.images().get(id)
        if path is None:
            hint = "" if self.root is not None else "; its datastore is that of --studies FOLDER"
            raise ServiceError(f"the service has no image of id {id[:60]!r}{hint}", 404)
        return path

    def _file_of(self, id: str, path: Path) -> Path:
        """Return the file of what `images` has, which of a series may have to be made first."""
        if self._series is None or not path.is_dir():
            return path
        with self._lock:
            return self._series.image(id, path)

    def labels(self) -> dict[str, dict[str, Path]]:
        """Return the labels by tag and by id of their image."""
        folder = None if self.root is None else self.root / "labels"
        if folder is None or not folder.is_dir():
            return {}
        return {place.name: _by_id(place) for place in sorted(folder.iterdir()) if place.is_dir()}

    def label(self, id: str, tag: str) -> Path:
        """Return the label of an image.

        Raises:
            ServiceError: 404.
        """
        path = self.labels().get(tag, {}).get(id)
        if path is None:
            raise ServiceError(f"image {id[:60]!r} has no label with tag {tag[:60]!r}", 404)
        return path

    def label_info(self, id: str, tag: str) -> dict[str, Any]:
        """Return what was said about a label when it was saved; empty where nothing was."""
        path = _info_path(self.label(id, tag))
        try:
            info = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return info if isinstance(info, dict) else {}

    def image_info(self, id: str) -> dict[str, Any]:
        """Return name and time of an image."""
        place = self._find(id)
        self._file_of(id, place)  # refuses a series that cannot be read
        return _info(place)

    def status(self) -> dict[str, Any]:
        """Return counts of images and labels, with MONAI Label's fields."""
        images, labels = self.images(), self.labels()
        return {
            "total": len(images),
            "completed": len(images.keys() & labels.get(FINAL, {}).keys()),
            "label_tags": {tag: len(some) for tag, some in labels.items()},
        }

    def describe(self) -> dict[str, Any]:
        """Return all images with their labels, with MONAI Label's fields."""
        labels = self.labels()
        objects = {
            id: {
                "image": {
                    "ext": ".nrrd" if path.is_dir() else _suffix(path.name),
                    "info": _info(path),
                },
                "labels": {
                    tag: {"ext": _suffix(some[id].name), "info": self.label_info(id, tag)}
                    for tag, some in labels.items()
                    if id in some
                },
            }
            for id, path in self.images().items()
        }
        name = "" if self.root is None else self.root.name
        return {"name": name, "description": "a folder of medseg_gym's", "objects": objects}

    def next_image(self) -> dict[str, Any]:
        """Return the first image without a final label; empty where all have one."""
        done = self.labels().get(FINAL, {})
        for id, place in self.images().items():
            if id not in done:
                path = self._file_of(id, place)
                digest = hashlib.sha256()
                with path.open("rb") as file:
                    while block := file.read(1 << 20):
                        digest.update(block)
                return {"id": id, **_info(place), "checksum": f"SHA256:{digest.hexdigest()}"}
        return {}

    # what comes --------------------------------------------------------------------------------
    def add_image(self, id: str, name: str | None, content: bytes) -> str:
        """Save an image; its id.

        Raises:
            ServiceError: 409 where the id is taken; 404, 413, 415 or 422 where it cannot be saved.
        """
        root, kind = self._root(), kind_of(name)
        if id.endswith(kind):
            id = id.removesuffix(kind)
        if not _ID.fullmatch(id) or volume_suffix(id):
            raise ServiceError(
                f"image {id[:60]!r}: an id is up to 200 letters, digits, '.', '_', '-', '+', "
                "blanks or brackets, without an ending"
            )
        with self._lock:
            if id in self.images():
                raise ServiceError(
                    f"image {id!r} is there already and is not overwritten; choose another id", 409
                )
            self._write(root / f"{id}{kind}", content, id)
        return id

    def save_label(
        self, id: str, tag: str, name: str | None, content: bytes, info: Mapping[str, Any]
    ) -> str:
        """Save the label of an image; an earlier one is kept beside it.

        Args:
            id: Of the image.
            tag: Such as "final".
            name: Of the file, whose ending tells its kind.
            content: Of the file.
            info: Kept beside it.

        Returns:
            Name of the earlier one, "" where there was none.

        Raises:
            ServiceError: 404, 413, 415 or 422.
        """
        root, image = self._root(), self.image(id)
        kind_of(name)
        kind = _suffix(name or "")
        if not _TAG.fullmatch(tag):
            raise ServiceError(f"tag {tag[:60]!r}: up to 64 letters, digits, '_' or '-'")
        folder = root / "labels" / tag
        with self._lock, atomic_path(folder / f"{id}{kind}") as temporary:
            checked = temporary.with_name(f"{temporary.name}{kind}")
            try:
                checked.write_bytes(content)
                label = open_header(checked, f"the label of {id}", self.max_voxels)
                own = open_header(image, id, self.max_voxels).header.shape
                # Slicer's segmentations hold the part of the grid alone that has segments.
                if kind != _SEGMENTATION and label.header.shape != own:
                    raise ServiceError(
                        f"the label has {label.header.shape} voxels, and image {id!r} has {own}; "
                        "save it on the grid of the image"
                    )
                checked.replace(temporary)
            finally:
                checked.unlink(missing_ok=True)
            earlier = self._move_away(folder, id)
            atomic_write(folder / f"{id}.info.json", json.dumps(dict(info), indent=1))
        return earlier

    def _move_away(self, folder: Path, id: str) -> str:
        before = _by_id(folder).get(id) if folder.is_dir() else None
        if before is None:
            return ""
        kept = folder / "earlier"
        kept.mkdir(exist_ok=True)
        stamp = time.strftime("%Y%m%d-%H%M%S")
        number = 1
        while True:
            name = f"{id}-{stamp}-{number}"
            path = kept / f"{name}{_suffix(before.name)}"
            if not path.exists():
                break
            number += 1
        before.replace(path)
        info = _info_path(before)
        if info.exists():
            info.replace(kept / f"{name}.info.json")
        return path.name

    def _root(self) -> Path:
        if self.root is None:
            raise ServiceError("the service has no datastore: start it with --studies FOLDER", 404)
        return self.root

    def _write(self, path: Path, content: bytes, shown: str) -> None:
        with atomic_path(path) as temporary:
            checked = temporary.with_name(f"{temporary.name}{_suffix(path.name)}")
            try:
                checked.write_bytes(content)
                open_header(checked, shown, self.max_voxels)
                checked.replace(temporary)
            finally:
                checked.unlink(missing_ok=True)


def _info(path: Path) -> dict[str, Any]:
    return {"name": path.name, "ts": int(path.stat().st_mtime)}


def _suffix(name: str) -> str:
    return _SEGMENTATION if name.lower().endswith(_SEGMENTATION) else volume_suffix(name)


def _by_id(folder: Path) -> dict[str, Path]:
    """Image files of a folder; where two differ by the ending alone, all but the first keep it."""
    paths: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        suffix = _suffix(path.name)
        usable = volume_suffix(path.name) in KINDS and not path.name.startswith(".")
        if usable and path.is_file():
            id = path.name[: len(path.name) - len(suffix)]
            paths[path.name if id in paths else id] = path
    return paths


def _info_path(label: Path) -> Path:
    name = label.name[: len(label.name) - len(_suffix(label.name))]
    return label.with_name(f"{name}.info.json")
