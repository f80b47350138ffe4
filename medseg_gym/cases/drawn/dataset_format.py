"""The base of formats that keep drawn objects: from objects on an image to cases."""

from __future__ import annotations

import posixpath
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from medseg_gym.cases.drawn.kept_fields import kept_fields
from medseg_gym.cases.drawn.objects import DrawnImage, DrawnObject
from medseg_gym.cases.drawn.shapes import ELLIPSE, POLYGON, UNION, draw_shape, extent
from medseg_gym.cases.drawn.words import LEFT_OUT, words_of_labels
from medseg_gym.cases.files.access.guards import require_file
from medseg_gym.cases.files.counts import Counts
from medseg_gym.cases.files.dataset_format import DatasetFormat
from medseg_gym.cases.files.defects import Damaged, Defect
from medseg_gym.cases.files.file_cache import FileCache
from medseg_gym.cases.files.modality import modality_of
from medseg_gym.cases.files.records import Pixels, Record
from medseg_gym.cases.files.spec import FileSpec, WrongOption
from medseg_gym.cases.image_files.options import ImageFileOptions, ImageOptions
from medseg_gym.errors import nearest

_SUBFOLDERS = ("annotations", "labels")  # whose images lie beside them
_OUTSIDE = 0.5  # pixels that rounding may bring a corner over the border


@dataclass(frozen=True, kw_only=True)
class DrawnOptions(ImageFileOptions):
    """Options of every `DrawnFormat`."""

    topic: ClassVar[str] = "Drawn objects"

    instances: Literal["union", "apart"] = "union"
    """"union": the objects of one label on an image are one case together; "apart": each is a case
    of its own."""

    boxes: bool = False
    """Fill boxes and take them as outlines; by default they are left out and counted."""

    labels: str = ""
    """Words for labels: `polyp:polyp in colon endoscopy,tool:-` (`-` leaves a label out), or a JSON
    file of the same; the rest keep theirs."""

    images: str = ""
    """Folder of the images, relative to PATH or absolute, where they lie elsewhere than beside
    their annotations or in the folders that the format knows."""

    spacing: tuple[float, float] | None = None
    """ROW,COLUMN millimetres a pixel."""

    def __post_init__(self) -> None:
        if self.spacing is not None and min(self.spacing) <= 0:
            raise WrongOption("spacing", "give positive millimetres")


class DrawnFormat(DatasetFormat):
    """Images, and files that say what was drawn on them.

    A subclass lists `DrawnImage`s and may draw more than polygons and ellipses. All objects of one
    label on an image make one case, or each makes one (`instances=apart`).
    """

    options = DrawnOptions

    def __init__(self, spec: FileSpec) -> None:
        super().__init__(spec)
        self.only = ""  # the file that the path is, relative to the root
        if self.root.is_file():
            self.root = self.root.parent
            if self.root.name.lower() in _SUBFOLDERS:
                self.root = self.root.parent
            self.only = spec.path.relative_to(self.root).as_posix()
        self._given = spec.read(DrawnOptions)
        self._images = ImageOptions.of(spec)
        self._words = words_of_labels(spec, self._given.labels)

    @abstractmethod
    def drawn(self, file_cache: FileCache, counts: Counts) -> Iterator[DrawnImage | Defect]:
        """List images with what was drawn on them, and everything that is wrong.

        Args:
            file_cache: See `DatasetFormat.index`.
            counts: Takes the notes.
        """

    def index(self, file_cache: FileCache) -> Iterator[Record | Defect]:
        """List the cases; pixels are not read.

        Args:
            file_cache: Used by the format.

        Yields:
            Records in the order of the files, and Defects.
        """
        counts = Counts()
        labels: set[str] = set()
        kept: list[tuple[int, Record]] = []
        for item in self.drawn(file_cache, counts):
            if isinstance(item, Defect):
                yield item
                continue
            labels.update(one.label for one in item.objects)
            if item.objects:
                yield from self._records(item, counts, kept)
            else:
                reason = "images without an object"
                counts.add("", reason, item.image, left_out=True)
        yield from (record for _, record in sorted(kept, key=lambda one: one[0]))
        for label in self._words:
            if label not in labels:
                known = ", ".join(map(repr, sorted(labels)[:8])) or "none"
                yield Defect(
                    "",
                    f"the option labels= has words for {label!r}{nearest(label, labels)}, which no "
                    f"object is called; labels here: {known}",
                )
        yield from counts.notes()

    def _records(
        self, image: DrawnImage, counts: Counts, kept: list[tuple[int, Record]]
    ) -> Iterator[Record | Defect]:
        """Yield the cases of an image; those that a writer kept go into `kept`, with their order.

        Files lie by image, and the cases of one image need not have followed each other.
        """
        try:
            require_file(self.path(image.image), image.image)
        except Damaged as error:
            cause = f"its image {image.image!r}: {error.defect.cause}"
            place = image.objects[0].place
            lost = {one.label for one in image.objects}
            for label in sorted(lost):
                yield Defect(image.file, cause, place, f"{image.image}#{label}")
            return
        together: dict[str, list[DrawnObject]] = {}
        apart = self._given.instances == "apart"
        for one in image.objects:
            if (problem := _beyond(one, image, counts)) is not None:
                yield problem
            elif one.extra:
                try:
                    kept.append(self._kept(one, image))
                except (TypeError, ValueError) as error:
                    key = str(one.extra.get("key") or f"{image.image}#{one.label}")
                    cause = f"the fields that a writer kept: {error}"
                    yield Defect(image.file, cause, one.place, key)
            elif self._words.get(one.label) == LEFT_OUT:
                reason = "objects whose label is to be left out (labels= changes that)"
                counts.add("", reason, f"{image.file}, {one.place}", left_out=True)
            elif one.box and not self._given.boxes:
                reason = "objects with a box and without an outline (boxes=1 fills boxes)"
                counts.add("", reason, f"{image.file}, {one.place}", left_out=True)
            else:
                name = f"{one.label}/{one.number}" if apart else one.label
                together.setdefault(name, []).append(one)
        for name, objects in together.items():
            yield self._record(f"{image.image}#{name}", objects, image)

    def _record(self, key: str, objects: Sequence[DrawnObject], image: DrawnImage) -> Record:
        text = self._words.get(objects[0].label, objects[0].label)
        stem = posixpath.splitext(posixpath.basename(image.image))[0]
        return Record(
            key=key,
            target=text,
            files=(image.image, image.file),
            place=_place(objects, image),
            split=image.split,
            group=image.group or image.image,
            modality=modality_of(text, stem, posixpath.dirname(image.image)),
            spacing=self._given.spacing,
            size=image.size,
        )

    def _kept(self, one: DrawnObject, image: DrawnImage) -> tuple[int, Record]:
        record = Record(
            key=str(one.extra.get("key") or f"{image.image}#{one.label}/{one.number}"),
            target=str(one.extra.get("target") or one.label),
            files=(image.image, image.file),
            place=_place([one], image),
            split=image.split,
            **kept_fields(one.extra),
        )
        return int(one.extra.get("order", 0)), record

    def read(self, record: Record) -> Pixels:
        """Decode the image and draw the mask.

        Raises:
            Damaged: The image or an object cannot be used, or covers no pixel.
        """
        name, file = record.files
        pixels = self.cache.get(name, lambda: self._image(name), lambda a: int(a.nbytes))
        height, width = pixels.shape[:2]
        size, objects = record.place["size"], record.place["objects"]
        if size is not None and tuple(size) != (height, width):
            way_out = (
                "; orientation=stored leaves images as they are stored, whatever EXIF says"
                if tuple(size) == (width, height)
                else ""
            )
            raise Damaged(
                file,
                f"says that {name!r} is {size[1]} x {size[0]} pixels, but it is {width} x {height} "
                f"(width, height){way_out}",
                objects[0][0],
            )
        mask = np.zeros((height, width), bool)
        drawn = False  # whether something of it must show
        for place, shape in objects:
            mask |= self.draw(shape, height, width, file, place)
            drawn |= self.must_show(shape)
        if drawn and not mask.any():
            cause = "covers the centre of no pixel; remove it, or draw it larger"
            raise Damaged(file, cause, objects[0][0])
        return Pixels(pixels, mask)

    def draw(self, shape: Any, height: int, width: int, file: str, place: str) -> np.ndarray:
        """Return the pixels of a shape.

        Args:
            shape: Of a `DrawnObject`.
            height: Rows of the image.
            width: Columns.
            file: Where the object stands, for the error.
            place: Likewise.

        Returns:
            (H, W) bool.

        Raises:
            Damaged: It cannot be drawn.
        """
        if shape[0] == UNION:
            mask = np.zeros((height, width), bool)
            for one in shape[1]:
                mask |= self.draw(one, height, width, file, place)
            return mask
        return draw_shape(shape, height, width)

    def must_show(self, shape: Any) -> bool:
        """Return whether a shape that covers no pixel is a defect; else it is an empty mask."""
        return shape[0] in (POLYGON, ELLIPSE)

    def _image(self, name: str) -> np.ndarray:
        return self._images.image(self.path(name), name)


def _place(objects: Sequence[DrawnObject], image: DrawnImage) -> dict[str, Any]:
    return {"size": image.size, "objects": [[one.place, one.shape] for one in objects]}


def _beyond(one: DrawnObject, image: DrawnImage, counts: Counts) -> Defect | None:
    """Refuse what lies outside of its image; note what is cut at its border."""
    if image.size is None or one.shape[0] not in (POLYGON, ELLIPSE):
        return None
    height, width = image.size
    left, top, right, bottom = extent(one.shape)
    if right <= 0 or bottom <= 0 or left >= width or top >= height:
        cause = (
            f"lies outside of its image ({width} x {height}): x {left:g} to {right:g}, "
            f"y {top:g} to {bottom:g}"
        )
        return Defect(image.file, cause, one.place, f"{image.image}#{one.label}")
    if min(left, top) < -_OUTSIDE or right > width + _OUTSIDE or bottom > height + _OUTSIDE:
        counts.add(image.file, "reaches out of its image and is cut at the border", one.place)
    return None
