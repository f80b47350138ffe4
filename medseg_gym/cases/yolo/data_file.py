"""Read data.yaml: names of the classes, and folders of images by split."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from medseg_gym.cases.files.access.guards import require_file
from medseg_gym.cases.files.access.json_values import kind_of
from medseg_gym.cases.files.defects import Damaged, Defect, decoding
from medseg_gym.cases.source import SPLITS

_MAX_BYTES = 4_000_000


@dataclass(frozen=True)
class DataFile:
    """Content of data.yaml.

    Args:
        names: Class names by number.
        folders: (split, folder or list of images relative to the root).
        defects: Folders that are missing.
    """

    names: dict[int, str]
    folders: tuple[tuple[str, str], ...]
    defects: tuple[Defect, ...]


def read_data_file(root: Path, name: str) -> DataFile:
    """Read data.yaml.

    Folders start at its `path` where that exists here, or else at the folder of data.yaml; an
    ellipsis `../` at their beginning that leads nowhere is left out, as some exports have one.

    Args:
        root: Folder of the data set.
        name: Path of the file, relative to it.

    Raises:
        Damaged: It cannot be used.
    """
    require_file(root / name, name, _MAX_BYTES)
    with decoding(name):
        document = yaml.safe_load((root / name).read_text(encoding="utf-8"))
    if not isinstance(document, dict):
        raise Damaged(name, f"is {kind_of(document)}, expected keys: names, train, val, test")
    names = _names(document.get("names"), name)
    own = (root / name).parent
    bases = [own]
    if isinstance(document.get("path"), str) and (own / document["path"]).is_dir():
        bases.insert(0, own / document["path"])
    folders: list[tuple[str, str]] = []
    defects: list[Defect] = []
    for split in SPLITS:
        value = document.get(split, document.get("valid") if split == "val" else None)
        for one in value if isinstance(value, list) else [value] if value else []:
            place = _existing(bases, one)
            if place is None:
                defects.append(Defect(name, f"{one!r} is no folder or list of images", split))
            else:
                folders.append((split, os.path.relpath(place, root).replace(os.sep, "/")))
    if not folders and not defects:
        raise Damaged(name, "names no images: 'train', 'val' and 'test' are missing")
    return DataFile(names, tuple(folders), tuple(defects))


def _existing(bases: list[Path], one: Any) -> Path | None:
    if not isinstance(one, str) or "\0" in one:
        return None
    plain = one.replace("\\", "/")
    for text in dict.fromkeys((plain, plain.lstrip("./") if plain.startswith("../") else plain)):
        for base in bases:
            if (base / text).exists():
                return base / text
    return None


def _names(value: Any, name: str) -> dict[int, str]:
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not value:
        raise Damaged(name, f"'names' is {kind_of(value)}, expected names of the classes")
    names: dict[int, str] = {}
    for number, words in value.items():
        plain = isinstance(words, (str, int, float)) and str(words).strip()
        if isinstance(number, bool) or not isinstance(number, int) or not plain:
            raise Damaged(name, f"'names' has {number!r}: {words!r}, expected NUMBER: NAME")
        names[number] = str(words).strip()
    return names
