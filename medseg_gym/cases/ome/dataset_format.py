"""Read OME-Zarr and OME-TIFF."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medseg_gym.cases.drawn.kept_fields import EXTRA, kept_fields
from medseg_gym.cases.files.counts import Counts
from medseg_gym.cases.files.dataset_format import DatasetFormat
from medseg_gym.cases.files.defects import Damaged, Defect
from medseg_gym.cases.files.file_cache import FileCache
from medseg_gym.cases.files.modality import modality_of
from medseg_gym.cases.files.records import Pixels, Record
from medseg_gym.cases.files.spec import FileOptions, FileSpec, WrongOption
from medseg_gym.cases.files.splits import split_named
from medseg_gym.cases.nifti.labels import labels_option, read_names, unnamed
from medseg_gym.cases.ome.images import OmeImage, find_images, newest
from medseg_gym.cases.ome.planes import plane_values, shown_plane
from medseg_gym.cases.ome.stack import Stack
from medseg_gym.cases.volumes import parse_window
from medseg_gym.cases.volumes.requirements import require
from medseg_gym.errors import CaseError


@dataclass(frozen=True, kw_only=True)
class OmeOptions(FileOptions):
    """Options of `OmeFormat`."""

    topic = "OME"

    channel: str = ""
    """Channels that are shown: one, or three with "+" between them as red, green and blue. By
    default the only one, or three of 8 bits as colours."""

    window: str = ""
    """Intensities shown black and white: LOW,HIGH or percentiles. By default those that OME-Zarr
    gives (omero), 0,255 for 8 bits, and otherwise refused."""

    level: int = 0
    """Resolution of OME-Zarr, 0 is the largest; labels of the same size are taken."""

    labels: str = ""
    """Names of label values as for `nifti:`: "1:nucleus,2:ignore" or a .json file. By default all
    values above 0 are one target, called as the label image is or as its properties say."""

    target: str = ""
    """Name of the target where nothing else says it, as in OME-TIFF."""

    instances: Literal["union", "apart"] = "union"
    """"apart": each value of a label image without names is a case of its own."""

    min_area: int = 1
    """Pixels that a target has on a plane, at least."""

    def __post_init__(self) -> None:
        if self.level < 0 or self.min_area < 1:
            raise WrongOption("level" if self.level < 0 else "min_area", "give a whole number")


class OmeFormat(DatasetFormat):
    """OME-Zarr images with label images, and OME-TIFFs with label OME-TIFFs beside them.

    Each plane (t, z) on which a target shows is a case; the image is the group. Label TIFFs are
    found by name as `folder:` does.
    """

    name = "ome"
    options = OmeOptions
    index_options = ("level",)

    def __init__(self, spec: FileSpec) -> None:
        require("ome:", "zarr", extra="ome")
        super().__init__(spec)
        self.given = spec.read(OmeOptions)
        self.labels = labels_option(spec)
        try:
            self._window = parse_window(self.given.window, "") if self.given.window else None
            self._channels = [int(one) for one in self.given.channel.split("+") if one]
        except CaseError as error:
            raise spec.wrong("window", str(error)) from error
        except ValueError as error:
            raise spec.wrong("channel", "give a number, or three as 0+1+2") from error
        if len(self._channels) not in (0, 1, 3) or min(self._channels, default=0) < 0:
            raise spec.wrong("channel", "give a number, or three as 0+1+2")
        self._open: dict[str, tuple[Stack, dict[str, Any]]] = {}

    def index(self, file_cache: FileCache) -> Iterator[Record | Defect]:
        """List the planes with a label; label images are read once and remembered."""
        counts = Counts()
        kept: list[tuple[int, Record]] = []
        for image in find_images(self.root, counts):
            if isinstance(image, Defect):
                yield image
                continue
            try:
                stack, _ = self._stack(image.path, image)
                names = image.label_names(self.root)
                if not names:
                    counts.add("", "images without labels", image.path, left_out=True)
                for name in names:
                    for one in self._of_label(image, stack, name, file_cache, counts):
                        if isinstance(one, tuple):
                            kept.append(one)
                        else:
                            yield one
            except Damaged as error:
                yield error.defect
        yield from (record for _, record in sorted(kept, key=lambda one: one[0]))
        yield from counts.notes()

    def _of_label(
        self, image: OmeImage, stack: Stack, name: str, file_cache: FileCache, counts: Counts
    ) -> Iterator[Record | Defect | tuple[int, Record]]:
        try:
            labels, attributes = self._stack(name, image)
            _check_fit(stack, labels)
        except Damaged as error:
            yield error.defect
            return
        changed = newest(self.path(name))
        values = file_cache.remember(name, [changed], partial(plane_values, labels))
        if "defect" in values:
            yield Defect(**values["defect"])
            return
        files = (image.path, newest_in(self.root, image.path), newest_in(self.root, name), name)
        common: dict[str, Any] = {
            "files": files,
            "size": stack.size,
            "group": image.path or self.root.name,
        }
        split = split_named(image.path.partition("/")[0]) if "/" in image.path else ""
        if isinstance(extra := attributes.get(EXTRA), dict):
            yield self._kept(extra, name, {**common, "split": split})
            return
        if not values["planes"]:
            counts.add("", "label images without a label above 0", name, left_out=True)
        areas: dict[int, int] = {}
        for _, of_plane in values["planes"]:
            for value, area in of_plane:
                areas[value] = areas.get(value, 0) + area
        try:
            targets = self._targets(areas, attributes, image.target_of(name) or self.given.target)
        except CaseError as error:
            yield Defect(name, str(error))
            return
        for (t, z), of_plane in values["planes"]:
            at = f"t{t}/z{z}" if stack.length("t") > 1 else f"z{z}"
            for text, own in targets:
                area = sum(area for value, area in of_plane if own is None or value in own)
                if not area:
                    continue
                if area < self.given.min_area:
                    reason = (
                        f"targets on planes with under {self.given.min_area} pixels "
                        "(min_area= changes that)"
                    )
                    counts.add("", reason, f"{name}, {at}", left_out=True)
                    continue
                tail = f"{text}/{own[0]}" if self.given.instances == "apart" and own else text
                yield Record(
                    key=f"{name}#{at}/{tail}",
                    target=text,
                    place={"t": t, "z": z, "values": own},
                    split=split,
                    modality=modality_of(text, image.path),
                    spacing=stack.spacing,
                    area=area,
                    **common,
                )

    def _kept(self, extra: dict[str, Any], name: str, common: dict[str, Any]) -> Any:
        try:
            fields = {**common, **kept_fields(extra)}
            record = Record(
                key=str(extra["key"]),
                target=str(extra["target"]),
                place={"t": 0, "z": 0, "values": None},
                **fields,
            )
            return int(extra.get("order", 0)), record
        except (KeyError, TypeError, ValueError) as error:
            return Defect(name, f"the fields that a writer kept: {error}")

    def _targets(
        self, areas: dict[int, int], attributes: dict[str, Any], usual: str
    ) -> list[tuple[str, list[int] | None]]:
        """Names and values of the targets of a label image; None is all values above 0."""
        names = self.labels
        if names is None:
            properties = _properties(attributes)
            if properties:
                names = properties
        if names is not None:
            if without := unnamed(areas, names):
                raise CaseError(
                    f"label {without[0]} occurs and has no name; labels= names it or, as "
                    f"{without[0]}:ignore, leaves it out"
                )
            return [(text, list(own)) for text, own in read_names(names).items()]
        if not usual:
            raise CaseError("nothing says what the labels show; give target=nucleus or labels=")
        if self.given.instances == "apart":
            return [(usual, [value]) for value in sorted(areas)]
        return [(usual, None)]

    def read(self, record: Record) -> Pixels:
        """Decode a plane of the image and of its labels."""
        name, *_, label = record.files
        image = OmeImage(name)
        (stack, _), (labels, _) = self._stack(name, image), self._stack(label, image)
        t, z, values = (record.place[key] for key in ("t", "z", "values"))
        pixels = shown_plane(stack, t, z, self._channels, self._window)
        plane = labels.plane(t if labels.length("t") > 1 else 0, 0, z)
        mask = plane > 0 if values is None else np.isin(plane, values)
        return Pixels(pixels, mask)

    def _stack(self, name: str, image: OmeImage) -> tuple[Stack, dict[str, Any]]:
        if name not in self._open:
            self._open[name] = image.open(self.root, name, self.given.level)
        return self._open[name]


def newest_in(root: Path, name: str) -> str:
    """Path, relative to the root, of the file of an image that was written last."""
    return newest(root / name).relative_to(root).as_posix()


def _check_fit(stack: Stack, labels: Stack) -> None:
    if labels.dtype.kind not in "iu" or labels.channels > 1 or labels.rgb:
        cause = f"is no label image: {labels.channels} channels of {labels.dtype}"
        raise Damaged(labels.name, cause)
    for axis in "tzyx":
        if labels.length(axis) != stack.length(axis) and not (
            axis == "t" and labels.length("t") == 1
        ):
            raise Damaged(
                labels.name,
                f"has {labels.length(axis)} pixels along {axis}, its image {stack.length(axis)}; "
                "another level= may fit",
            )


def _properties(attributes: dict[str, Any]) -> dict[str, int | list[int]]:
    """Names that `image-label` gives values: {"nucleus": [1, 2]}."""
    label = attributes.get("image-label")
    rows = label.get("properties") if isinstance(label, dict) else None
    names: dict[str, Any] = {}
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict) or not isinstance(row.get("label-value"), int):
            continue
        text = next((row[key] for key in ("name", "class", "label") if row.get(key)), None)
        if isinstance(text, str):
            names.setdefault(text, []).append(row["label-value"])
    return names
