"""Formats whose annotations are files of one kind anywhere under the path."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from medseg_gym.cases.drawn.dataset_format import DrawnFormat
from medseg_gym.cases.drawn.image_files import ImageFiles, listed
from medseg_gym.cases.drawn.objects import DrawnImage
from medseg_gym.cases.files.access.walk import walk
from medseg_gym.cases.files.counts import Counts
from medseg_gym.cases.files.defects import Damaged, Defect
from medseg_gym.cases.files.file_cache import FileCache


class AnnotationFilesFormat(DrawnFormat):
    """Annotation files of one ending, and the images that they name.

    The path is one such file, or a folder with any number of them.
    """

    ending: ClassVar[str]
    """Of the annotation files, in lower case."""

    none_there: ClassVar[str]
    """Defect of a folder without one."""

    def drawn(self, file_cache: FileCache, counts: Counts) -> Iterator[DrawnImage | Defect]:
        """See `DrawnFormat.drawn`; the annotation files are read each time."""
        names, defects = listed(walk(self.root))
        yield from defects
        images = ImageFiles(names, self.root, self._given.images)
        files = [self.only] if self.only else [n for n in names if n.lower().endswith(self.ending)]
        if not files:
            yield Defect("", self.none_there)
        for name in files:
            try:
                yield from self.of_file(name, images, counts)
            except Damaged as error:
                yield error.defect
        if not self.only:
            images.strays(counts)

    @abstractmethod
    def of_file(
        self, name: str, images: ImageFiles, counts: Counts
    ) -> Iterator[DrawnImage | Defect]:
        """List the images of one annotation file.

        Args:
            name: Path of the file relative to the root.
            images: Files that may be the images.
            counts: Takes the notes.

        Raises:
            Damaged: The file cannot be used.
        """
