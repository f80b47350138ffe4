"""Read exports of CVAT."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element  # a type alone; the parser is defusedxml

import numpy as np

from medseg_gym.cases.cvat.shapes import RUNS, draw_runs, read_shape
from medseg_gym.cases.drawn import DrawnImage, DrawnObject
from medseg_gym.cases.drawn.annotation_files import AnnotationFilesFormat
from medseg_gym.cases.drawn.image_files import ImageFiles
from medseg_gym.cases.drawn.shapes import whole
from medseg_gym.cases.files.access.guards import MAX_JSON_BYTES, check_pixels, require_file
from medseg_gym.cases.files.access.json_values import inner_path
from medseg_gym.cases.files.counts import Counts
from medseg_gym.cases.files.defects import Damaged, Defect, decoding
from medseg_gym.cases.files.spec import FileSpec
from medseg_gym.cases.files.splits import split_named, split_named_once
from medseg_gym.cases.volumes.requirements import require


class CvatFormat(AnnotationFilesFormat):
    """XML of "CVAT for images 1.1", and the images that it names.

    The path is one XML file, or a folder with any number of them. Labels are the targets; the
    subset of an image, the name of the XML or a folder says the split.
    """

    name = "cvat"
    ending = ".xml"
    none_there = "holds no XML file; give the folder of an export of CVAT for images"

    def __init__(self, spec: FileSpec) -> None:
        require("cvat:", "defusedxml", extra="cvat")
        super().__init__(spec)

    def of_file(
        self, name: str, images: ImageFiles, counts: Counts
    ) -> Iterator[DrawnImage | Defect]:
        """See `AnnotationFilesFormat.of_file`."""
        for element in self._images_of(name, counts):
            image = element.get("name", "")
            try:
                split = split_named(element.get("subset", "")) or _split_of(name)
                size = None
                if "width" in element.attrib or "height" in element.attrib:
                    size = (_side(element, "height", name), _side(element, "width", name))
                    check_pixels(*size, name, f"image {image!r}")
                wanted = inner_path(image, "name", name, "image")
                path = images.find(wanted, name, f"image {image!r}", split)
            except Damaged as error:
                yield error.defect
                continue
            objects: list[DrawnObject] = []
            damaged = False
            for at, child in enumerate(element):
                try:
                    one = read_shape(child, at, image, name, counts)
                    objects += [] if one is None else [one]
                except Damaged as error:
                    damaged = True
                    yield error.defect
            if objects or not damaged:
                yield DrawnImage(path, name, objects, size, split)

    def _images_of(self, name: str, counts: Counts) -> list[Element]:
        """Elements of the images of a file; of an XML file of something else, none."""
        from defusedxml import ElementTree

        require_file(self.path(name), name, MAX_JSON_BYTES)
        with decoding(name):
            root: Element = ElementTree.parse(self.path(name), forbid_dtd=True).getroot()
        if root.tag != "annotations":
            if self.only:
                raise Damaged(name, f"is <{root.tag}>, expected <annotations> of CVAT for images")
            counts.add("", "an XML file that is no export of CVAT", name)
            return []
        if root.find("track") is not None:
            raise Damaged(name, "is CVAT for video (<track>); export it as CVAT for images 1.1")
        return root.findall("image")

    def draw(self, shape: Any, height: int, width: int, file: str, place: str) -> np.ndarray:
        """Draw masks too."""
        if shape[0] == RUNS:
            return draw_runs(shape, height, width, file, place)
        return super().draw(shape, height, width, file, place)


def _side(element: Element, key: str, name: str) -> int:
    text = element.get(key, "")
    value: Any = int(text) if text.isdecimal() else text
    return whole(value, key, name, f"image {element.get('name', '')!r}")


def _split_of(name: str) -> str:
    parts = [posixpath.splitext(posixpath.basename(name))[0], *name.split("/")[:-1]]
    return split_named_once(parts)
