"""Read COCO files."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from medseg_gym.cases.coco.annotations import RUNS, read_coco
from medseg_gym.cases.coco.run_lengths import counts_of, draw_runs
from medseg_gym.cases.drawn import DrawnImage, DrawnOptions
from medseg_gym.cases.drawn.annotation_files import AnnotationFilesFormat
from medseg_gym.cases.drawn.image_files import ImageFiles
from medseg_gym.cases.files.access.guards import read_json
from medseg_gym.cases.files.counts import Counts
from medseg_gym.cases.files.defects import Damaged, Defect, decoding
from medseg_gym.cases.files.spec import FileSpec
from medseg_gym.cases.files.splits import split_named, split_named_once
from medseg_gym.cases.volumes.requirements import require

_OTHER_TASKS = ("captions_", "person_keypoints_", "image_info_", "panoptic_", "stuff_")
_FAR = 10  # sides of the image; pycocotools takes memory for all that a polygon runs through


@dataclass(frozen=True, kw_only=True)
class CocoOptions(DrawnOptions):
    """Options of `CocoFormat`."""

    crowd: bool = False
    """Take crowds (iscrowd 1) as objects like others; by default they are left out and counted."""


class CocoFormat(AnnotationFilesFormat):
    """COCO files of instances, and the images that they name.

    The path is one JSON file, or a folder with any number of them; a name such as
    `instances_train2017.json` or `train/_annotations.coco.json` says the split. Categories are the
    targets. Masks are those of pycocotools' `annToMask`.
    """

    name = "coco"
    ending = ".json"
    none_there = "holds no JSON file; give the folder that has annotations and images"
    options = CocoOptions

    def __init__(self, spec: FileSpec) -> None:
        require("coco:", "pycocotools", extra="coco")
        super().__init__(spec)
        self._crowd = spec.read(CocoOptions).crowd

    def of_file(
        self, name: str, images: ImageFiles, counts: Counts
    ) -> Iterator[DrawnImage | Defect]:
        """See `AnnotationFilesFormat.of_file`."""
        if not self.only and posixpath.basename(name).startswith(_OTHER_TASKS):
            counts.add("", "a JSON file of another task than instances", name)
            return
        document = read_json(self.path(name), name)
        if not (isinstance(document, dict) and {"images", "annotations"} & document.keys()):
            if self.only:
                raise Damaged(name, "is no COCO file: an object with 'images' is expected")
            counts.add("", "a JSON file that is no COCO file", name)
            return
        split = _split_of(name)
        for image in read_coco(document, name, counts, self._crowd):
            if isinstance(image, Defect):
                yield image
                continue
            try:
                path = images.find(image.name, name, image.place, split)
            except Damaged as error:
                yield error.defect
                continue
            yield DrawnImage(path, name, image.objects, image.size, split, image.group)

    def draw(self, shape: Any, height: int, width: int, file: str, place: str) -> np.ndarray:
        """Draw polygons by pycocotools, whose union they are, and run lengths."""
        if shape[0] == RUNS:
            if shape[1] != [height, width] and tuple(shape[1]) != (height, width):
                cause = f"its run lengths are of {shape[1]} pixels, its image of {[height, width]}"
                raise Damaged(file, f"{cause} (height, width)", place)
            return draw_runs(counts_of(shape[2], file, place), height, width, file, place)
        from pycocotools import mask as masks

        reach = _FAR * max(height, width)
        if any(abs(value) > reach for one in shape[1] for value in one):
            cause = f"a corner lies over {_FAR} images away from its image; mend or remove it"
            raise Damaged(file, cause, place)
        with decoding(file, place):
            runs = masks.merge(masks.frPyObjects(shape[1], height, width))
        # Its own `decode` warns under NumPy 2, and so fails where warnings are errors.
        counts = counts_of(runs["counts"].decode("ascii"), file, place)
        return draw_runs(counts, height, width, file, place)


def _split_of(name: str) -> str:
    """Split in the name of the file ("instances_val2017.json"), or else of a folder above it."""
    own = split_named(posixpath.basename(name).rpartition(".")[0])
    return own or split_named_once(name.split("/")[:-1])
