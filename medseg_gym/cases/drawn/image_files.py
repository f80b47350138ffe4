"""Find the image files that annotations name, wherever tools put them."""

from __future__ import annotations

import os
import posixpath
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from medseg_gym.cases.files.counts import Counts
from medseg_gym.cases.files.defects import Damaged, Defect
from medseg_gym.cases.files.splits import split_named
from medseg_gym.cases.image_files.images import SUFFIXES


class ImageFiles:
    """The image files of a data set, found by the end of their path.

    Args:
        names: Paths of all files, relative to the root.
        root: The root.
        folder: Value of the option `images`: the only folder to look in, relative to the root or
            absolute; "" is every folder.
    """

    def __init__(self, names: Iterable[str], root: Path, folder: str = "") -> None:
        self._folder = ""
        if folder:
            inside = os.path.relpath(root / Path(folder).expanduser(), root)
            self._folder = inside.replace(os.sep, "/")
        self._root = root
        self._of_base: dict[str, list[str]] = defaultdict(list)
        self._names = {name for name in names if name.lower().endswith(SUFFIXES)}
        for name in sorted(self._names):
            self._of_base[posixpath.basename(name)].append(name)
        self._used: set[str] = set()

    def find(self, wanted: str, file: str, place: str, split: str = "") -> str:
        """Return the path of an image relative to the root.

        It lies beside the file that names it, or anywhere under the root but in folders of other
        splits; of several of that name, in a folder that is called after the split.

        Args:
            wanted: The name, maybe with folders.
            file: Path of the file that names it.
            place: Where inside of it.
            split: Split of that file.

        Raises:
            Damaged: There is none, or several and nothing says which.
        """
        name = self._find(wanted, file, place, split)
        self._used.add(name)
        return name

    def _find(self, wanted: str, file: str, place: str, split: str) -> str:
        if self._folder:
            name = posixpath.normpath(f"{self._folder}/{wanted}")
            if (self._root / name).is_file():
                return name
            raise Damaged(file, f"its image {wanted!r} is missing under images={name}", place)
        folder = posixpath.dirname(file)
        beside = f"{folder}/{wanted}" if folder else wanted
        if beside in self._names:
            return beside
        all_of = self._of_base.get(posixpath.basename(wanted), [])
        named = [name for name in all_of if name == wanted or name.endswith(f"/{wanted}")]
        if split:  # never an image of the same name in the folder of another split
            named = [name for name in named if _splits_in(name) <= {split}]
            if len(named) > 1:
                named = [name for name in named if _splits_in(name)] or named
        if len(named) == 1:
            return named[0]
        if named:
            several = ", ".join(map(repr, named[:3]))
            cause = f"its image {wanted!r} may be any of {len(named)} ({several})"
        else:
            cause = f"its image {wanted!r} is missing"
        raise Damaged(file, f"{cause}; images=FOLDER says where images are", place)

    def strays(self, counts: Counts) -> None:
        """Count the images that no file names."""
        for name in sorted(self._names - self._used):
            reason = "images that no annotation file names"
            counts.add("", reason, name, left_out=True)


def _splits_in(name: str) -> set[str]:
    return {split_named(folder) for folder in name.split("/")[:-1]} - {""}


def listed(names: Iterable[str | Defect]) -> tuple[list[str], list[Defect]]:
    """Part what a walk yields into files and defects."""
    files: list[str] = []
    defects: list[Defect] = []
    for name in names:
        (defects if isinstance(name, Defect) else files).append(name)  # type: ignore[arg-type]
    return files, defects
