"""Read whole slides."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from medseg_gym.cases.drawn.image_files import listed
from medseg_gym.cases.drawn.words import LEFT_OUT, words_of_labels
from medseg_gym.cases.files.access.walk import walk
from medseg_gym.cases.files.counts import Counts
from medseg_gym.cases.files.dataset_format import DatasetFormat
from medseg_gym.cases.files.defects import Damaged, Defect
from medseg_gym.cases.files.file_cache import FileCache
from medseg_gym.cases.files.records import Pixels, Record
from medseg_gym.cases.files.spec import FileOptions, FileSpec, WrongOption
from medseg_gym.cases.files.splits import split_named_once
from medseg_gym.cases.volumes.slices import MIN_AREA
from medseg_gym.cases.wsi.geojson import Drawing, read_geojson
from medseg_gym.cases.wsi.slides import SUFFIXES, open_slide, require_reader
from medseg_gym.cases.wsi.tiles import draw_tile, grid, tile_areas, tile_size

MAX_TILES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class WsiOptions(FileOptions):
    """Options of `WsiFormat`."""

    topic: ClassVar[str] = "Whole slides"

    tile: int = 512
    """Side of a tile in pixels; at the right and lower border tiles are smaller."""

    level: int = 0
    """Level of the slide's pyramid, 0 is full resolution."""

    mpp: float | None = None
    """Micrometres a pixel, instead of a level; tiles are scaled to it."""

    labels: str = ""
    """Words for classes: `Tumor:tumour in histology,Artifact:-` (`-` leaves a class out), or a JSON
    file of the same; the rest keep theirs."""

    min_area: int = MIN_AREA
    """Pixels that a target has on a tile, at least."""

    def __post_init__(self) -> None:
        if not 16 <= self.tile <= 8192:
            raise WrongOption("tile", "give a number of pixels from 16 to 8192")
        if self.level < 0:
            raise WrongOption("level", "give a whole number from 0 on")
        if self.mpp is not None and not 0 < self.mpp < 1000:
            raise WrongOption("mpp", "give positive micrometres")
        if self.min_area < 1:
            raise WrongOption("min_area", "give a whole number from 1 on")


class WsiFormat(DatasetFormat):
    """Slides, each with a GeoJSON file of the same name: `a.svs` and `a.geojson`.

    Each tile on which a class shows is a case of that class; the slide is the group. Tiles on which
    nothing was drawn are counted.
    """

    name = "wsi"
    options = WsiOptions
    index_options = ("tile", "level", "mpp")

    def __init__(self, spec: FileSpec) -> None:
        require_reader()
        super().__init__(spec)
        self.given = spec.read(WsiOptions)
        self._words = words_of_labels(spec, self.given.labels)
        self._only = ""
        if self.root.is_file():
            self.root, self._only = self.root.parent, self.root.name

    def index(self, file_cache: FileCache) -> Iterator[Record | Defect]:
        """List the tiles that show something; what they show is remembered."""
        names, defects = listed(walk(self.root))
        yield from defects
        counts = Counts()
        drawings: dict[str, list[str]] = {}
        for name in names:
            if name.lower().endswith((".geojson", ".json")):
                stem = posixpath.splitext(posixpath.basename(name))[0]
                drawings.setdefault(stem, []).append(name)
        slides = [self._only] if self._only else [n for n in names if n.lower().endswith(SUFFIXES)]
        used: set[str] = set()
        for slide in slides:
            stem = posixpath.splitext(posixpath.basename(slide))[0]
            own = drawings.get(stem, [])
            folder = posixpath.dirname(slide)
            own = [name for name in own if posixpath.dirname(name) == folder] or own
            used.update(own)
            if not own:
                counts.add("", "slides without a GeoJSON file of their name", slide, left_out=True)
            elif len(own) > 1:
                several = ", ".join(map(repr, own[:3]))
                yield Defect(slide, f"{len(own)} files could be its annotations: {several}")
            else:
                yield from self._of_slide(slide, own[0], file_cache, counts)
        for name in names:
            if name.lower().endswith(".geojson") and name not in used and not self._only:
                yield Defect(name, "no slide has its name")
        yield from counts.notes()

    def _of_slide(
        self, slide: str, drawn: str, file_cache: FileCache, counts: Counts
    ) -> Iterator[Record | Defect]:
        files = [self.path(slide), self.path(drawn)]
        scan = file_cache.remember(slide, files, partial(self._scan, slide, drawn))
        for one in scan["defects"]:
            yield Defect(**one)
        if "size" not in scan:
            return
        reason = "points and lines, which have no area"
        counts.add("", reason, drawn, left_out=True, count=scan["flat"])
        size, downsample = tuple(scan["size"]), scan["downsample"]
        rows, columns = grid(size, self.given.tile, downsample)
        reason = "tiles on which nothing is drawn"
        counts.add("", reason, slide, left_out=True, count=rows * columns - len(scan["tiles"]))
        split = split_named_once(slide.split("/")[:-1])
        spacing = None
        if scan["mpp"]:
            spacing = (scan["mpp"] * downsample / 1000,) * 2
        for row, column, labels in scan["tiles"]:
            for label, (area, numbers) in labels.items():
                text = self._words.get(label, label)
                at = f"{slide}, tile {row}, {column}"
                if text == LEFT_OUT:
                    reason = "targets on tiles whose label is to be left out (labels= changes that)"
                    counts.add("", reason, at, left_out=True)
                elif area < self.given.min_area:
                    reason = (
                        f"targets on tiles with under {self.given.min_area} pixels "
                        "(min_area= changes that)"
                    )
                    counts.add("", reason, at, left_out=True)
                else:
                    yield Record(
                        key=f"{slide}#{row:04d}-{column:04d}/{label}",
                        target=text,
                        files=(slide, drawn),
                        place={"at": [row, column], "numbers": numbers, **_frame(scan)},
                        split=split,
                        group=slide,
                        modality="microscopy",
                        spacing=spacing,
                        size=tile_size((row, column), size, self.given.tile, downsample),
                        area=area,
                    )

    def _scan(self, slide: str, drawn: str) -> dict[str, Any]:
        """Read the annotations and count them by tile, for the `FileCache`."""
        try:
            with open_slide(self.path(slide), slide) as opened:
                downsample = opened.downsample(self.given.level, self.given.mpp)
                size, mpp = opened.size, opened.mpp
            rows, columns = grid(size, self.given.tile, downsample)
            if rows * columns > MAX_TILES:
                raise Damaged(slide, f"has {rows * columns} tiles; give a larger tile= or level=")
            drawing = read_geojson(self.path(drawn), drawn, size)
        except Damaged as error:
            return {"defects": [error.defect.as_dict()]}
        areas = tile_areas(drawing, size, self.given.tile, downsample)
        return {
            "size": size,
            "downsample": downsample,
            "mpp": mpp,
            "flat": drawing.flat,
            "defects": drawing.defects,
            "tiles": [[*at, labels] for at, labels in areas.items()],
        }

    def read(self, record: Record) -> Pixels:
        """Read a tile and draw what is on it."""
        slide, drawn = record.files
        (row, column), size = record.place["at"], tuple(record.place["size"])
        tile, downsample = self.given.tile, record.place["downsample"]
        height, width = tile_size((row, column), size, tile, downsample)

        def region() -> Any:
            left, top = (round(side * tile * downsample) for side in (column, row))
            with open_slide(self.path(slide), slide) as opened:
                return opened.region(left, top, height, width, downsample)

        pixels = self.cache.get((slide, row, column), region, lambda a: int(a.nbytes))
        drawing: Drawing = self.cache.get(
            (drawn, "drawing"),
            lambda: read_geojson(self.path(drawn), drawn, size),
            lambda one: 32 * sum(len(r) for _, _, shape in one.polygons for r in shape[1]),
        )
        numbers = record.place["numbers"]
        mask = draw_tile(drawing, numbers, (row, column), size, tile, downsample)
        return Pixels(pixels, mask)


def _frame(scan: dict[str, Any]) -> dict[str, Any]:
    return {"size": scan["size"], "downsample": scan["downsample"]}
