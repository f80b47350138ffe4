"""`dicom:PATH`: image series with SEG or RTSTRUCT as truth, one case per slice and target."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from medseg_gym.cases.dicom.facts import Facts, read_facts
from medseg_gym.cases.dicom.images import read_rgb_frame
from medseg_gym.cases.dicom.planes import Plane
from medseg_gym.cases.dicom.records import record_of, turned
from medseg_gym.cases.dicom.scan import geometry_of, read_planes
from medseg_gym.cases.dicom.series import Series, assemble, series_of
from medseg_gym.cases.dicom.truth.contours import draw, place_contours
from medseg_gym.cases.dicom.truth.placed import Placed
from medseg_gym.cases.dicom.truth.regridding import carry, carry_segments, lies_elsewhere
from medseg_gym.cases.dicom.truth.segment_slices import place_segments
from medseg_gym.cases.dicom.truth.segmentation import scan_segmentation, segment_values
from medseg_gym.cases.dicom.truth.structures import StructureSet, facts_of_regions, read_structures
from medseg_gym.cases.files import (
    Damaged,
    DatasetFormat,
    Defect,
    FileCache,
    Pixels,
    Record,
    VolumePixels,
)
from medseg_gym.cases.files.access.walk import walk
from medseg_gym.cases.files.counts import Counts
from medseg_gym.cases.files.spec import FileSpec
from medseg_gym.cases.source import SlicePlace
from medseg_gym.cases.volumes import parse_window, require
from medseg_gym.cases.volumes.slices import SliceChoice, SliceOptions
from medseg_gym.errors import CaseError

_NEVER_DICOM = (
    ".txt .md .json .csv .tsv .xml .html .htm .pdf .png .jpg .jpeg .gz .zip .tar .nii .nrrd .py "
    ".xlsx .docx .yaml .yml .log"
).split()


@dataclass(frozen=True, kw_only=True)
class DicomOptions(SliceOptions):
    """Options of `DicomFormat`."""

    window: str = ""
    """"file" (default: the file's own window; without one soft tissue for CT, else percentiles of
    the frame), "file:2" (its second), or as `medseg_gym.cases.volumes.parse_window`."""

    holes: Literal["drawn", "nested"] = "drawn"
    """Of an RTSTRUCT. "drawn": closed planar contours of a region in one plane are united, and
    holes are keyholes and contours of type CLOSEDPLANAR_XOR. "nested": contours strictly inside
    another one are holes too, and islands within those."""

    keep_identifiers: bool = False
    """Call groups by their PatientID; by default by a digest of it, so that no record tells it."""


class DicomFormat(DatasetFormat):
    """DICOM files under a folder, whatever they are called.

    Slices are those that were acquired or reconstructed, shown in the radiological view.

    Contours belong to the nearest slice, within half the distance of slices (exactly halfway, to
    the image that they refer to, else to the lower slice); others are left out and counted. Pixels
    of a fractional SEG belong to its target from half of the largest value on.

    The extra `data` decodes JPEG, JPEG-LS, JPEG 2000 and RLE, except lossy JPEG of 12 bits: its
    only decoder, pylibjpeg-libjpeg, is under the GPL; install it where that suits.

    Spacing is PixelSpacing; the detector's ImagerPixelSpacing of projection X-ray is not taken, as
    it is not the patient's.

    Args:
        spec: Path and options.

    Raises:
        CaseError: An option has a value that cannot be used, or pydicom or nibabel is not
            installed.
    """

    name = "dicom"
    version = 2
    index_options = ("holes", "resample")  # the rest is decided on what the index remembers
    options = DicomOptions

    def __init__(self, spec: FileSpec) -> None:
        super().__init__(spec)
        require(self.name, "pydicom", "nibabel")
        given = spec.read(DicomOptions)
        self.nested_holes, self.resample = given.holes == "nested", given.resample
        self.choice = SliceChoice.of(spec)
        self._keep_identifiers, self._salt = given.keep_identifiers, ""
        self._volumes: dict[str, tuple[Series, dict[int, Placed]]] = {}
        try:
            self.window = parse_window(given.window, "", own=True)
        except CaseError as error:
            raise spec.wrong("window", str(error)) from error

    def index(self, file_cache: FileCache) -> Iterator[Record | Defect]:
        """See `DatasetFormat.index`."""
        kinds: dict[str, dict[str, Facts]] = {"image": {}, "seg": {}, "rtstruct": {}}
        for name in walk(self.root):
            if isinstance(name, Defect):
                yield name
                continue
            last = (name or self.root.name).rsplit("/", 1)[-1].lower()
            if last == "dicomdir" or last.endswith(tuple(_NEVER_DICOM)):
                continue
            facts = file_cache.remember(name, [self.path(name)], partial(self._facts, name))
            if "defect" in facts:
                yield Defect(**facts["defect"])
            elif facts["kind"] == "foreign":
                named = last.endswith((".dcm", ".dicom", ".ima"))
                yield Defect(name, "is not a DICOM file", note=not named)
            elif facts["kind"] in kinds:
                kinds[facts["kind"]][name] = facts
        series = list(assemble(kinds["image"]))
        self._salt = min((one.facts["study"] for one in series), default="")
        used: set[str] = set()
        counts = Counts()
        records: list[Record | Defect] = []
        for name, facts in kinds["seg"].items():
            records.extend(self._from_segmentation(file_cache, name, facts, series, used, counts))
        for name in kinds["rtstruct"]:
            records.extend(self._from_structures(file_cache, name, series, used, counts))
        for one in series:  # what is wrong with images comes first: it may be why truth is lost
            yield from self._notes(one, one.uid in used)
        yield from records
        yield from counts.notes()

    def read(self, record: Record) -> Pixels:
        """See `DatasetFormat.read`."""
        image_file, truth = record.files[:2]
        place = record.place
        modality = self.spec.options.get("modality") or record.modality
        image = read_rgb_frame(
            self.path(image_file), image_file, place["frame"], self.window, modality, place["whole"]
        )
        mask = self._mask(truth, place, image.shape[:2])
        return Pixels(turned(image, place["turn"]), turned(mask, place["turn"]))

    def group_label(self, group: str) -> str:
        """Return a name that does not tell the PatientID, the same for the same data.

        A digest of a number can be guessed by trying all numbers, hence the UID in it.
        """
        if self._keep_identifiers:
            return group
        digest = hashlib.blake2b(f"{self._salt}|{group}".encode(), digest_size=6).hexdigest()
        return f"patient-{digest}"

    def place(self, record: Record) -> SlicePlace | None:
        """See `DatasetFormat.place`; images that do not say where they lie are no volume."""
        place = record.place
        return SlicePlace(place["volume"], place["slice"]) if place["volume"] else None

    def read_volume(self, record: Record) -> VolumePixels:
        """See `DatasetFormat.read_volume`."""
        truth, place = record.files[1], record.place
        series, by_slice = self._volumes[place["volume"]]
        assert series.view is not None  # `place` says so
        geometry = geometry_of(self.root, series, series.view.axis)
        modality = self.spec.options.get("modality") or record.modality
        size = (series.facts["rows"], series.facts["columns"])
        images, masks = [], []
        for index, image in enumerate(read_planes(self.root, series, self.window, modality)):
            mask = np.zeros(size, bool)
            if index in by_slice:
                one = record_of(by_slice[index], truth, "", place["kind"], series)
                mask = self._mask(truth, one.place, size)
            images.append(turned(image, place["turn"]))
            masks.append(turned(mask, place["turn"]))
        spacing = geometry.spacing if len(images) > 1 else None  # nothing says how thick one is
        return VolumePixels(np.stack(images), np.stack(masks), spacing, geometry)

    def _mask(self, truth: str, place: dict[str, Any], size: tuple[int, ...]) -> np.ndarray:
        """Return the target on a frame, (rows, columns) bool, as stored."""
        if place["kind"] == "seg":
            return self._segment(truth, place, size)
        contours = self._structures(truth).contours
        chosen = [contours[number] for number in place["parts"]]
        return draw(chosen, Plane.of(place["plane"]), size[0], size[1], self.nested_holes)

    def _segment(self, name: str, place: dict[str, Any], size: tuple[int, ...]) -> np.ndarray:
        mask = np.zeros(size, bool)
        for i, frame in enumerate(place["parts"]):
            shown = self._shown(name, frame, place["number"], place["labelmap"])
            if place["planes"]:
                own, onto = Plane.of(place["planes"][i]), Plane.of(place["plane"])
                shown = carry(shown, own, place["thickness"], onto, size)
            if shown.shape != mask.shape:
                raise Damaged(name, f"is {shown.shape}, its image {mask.shape}")
            mask |= shown
        return mask

    def _shown(self, name: str, frame: int, segment: int, labelmap: bool) -> np.ndarray:
        mask: np.ndarray = segment_values(self.path(name), name, frame) == (
            segment if labelmap else 1
        )
        return mask

    def _facts(self, name: str) -> Facts:
        try:
            return read_facts(self.path(name), name)
        except Damaged as error:
            return {"kind": "bad", "defect": error.defect.as_dict()}

    def _from_segmentation(
        self,
        file_cache: FileCache,
        name: str,
        facts: Facts,
        series: list[Series],
        used: set[str],
        counts: Counts,
    ) -> Iterator[Record | Defect]:
        scan = file_cache.remember(f"{name}|truth", [self.path(name)], lambda: self._scan(name))
        if "defect" in scan:
            yield Defect(**scan["defect"])
            return
        for note in scan["notes"]:
            yield Defect(**note)
        sops = [source[0] for sources, _ in scan["frames"] for source in sources]
        images = series_of(
            {**facts, "series": scan["series"], "sops": sops[:1]}, series, "segmentation"
        )
        if isinstance(images, str):
            yield Defect(name, images)
            return
        used.add(images.uid)
        if self.resample == "nearest" and lies_elsewhere(facts, scan, images):
            placed = self._remembered(
                file_cache, name, images, lambda: self._carried(name, facts, scan, images)
            )
        else:
            placed = list(place_segments(name, facts, scan, images))
        yield from self._records(name, "seg", images, placed, counts)

    def _from_structures(
        self, file_cache: FileCache, name: str, series: list[Series], used: set[str], counts: Counts
    ) -> Iterator[Record | Defect]:
        header = file_cache.remember(
            f"{name}|truth", [self.path(name)], lambda: self._regions(name)
        )
        if "defect" in header:
            yield Defect(**header["defect"])
            return
        for note in header["notes"]:
            yield Defect(**note)
        if not header["contours"]:
            yield Defect(name, "holds no closed planar contour", note=True)
            return
        images = series_of(header, series, "structure set")
        if isinstance(images, str):
            yield Defect(name, images)
            return
        used.add(images.uid)
        placed = self._remembered(file_cache, name, images, lambda: self._drawn(name, images))
        yield from self._records(name, "rtstruct", images, placed, counts)

    def _remembered(
        self,
        file_cache: FileCache,
        name: str,
        series: Series,
        make: Callable[[], Iterable[Placed | Defect]],
    ) -> list[Placed | Defect]:
        """Place truth on a series, remembered until a file of either changes."""
        files = [name, *dict.fromkeys(frame.file for frame in series.frames)]
        placed = file_cache.remember(
            f"{name}|{series.uid}",
            [self.path(file) for file in files],
            lambda: [[isinstance(one, Placed), asdict(one)] for one in make()],
        )
        return [Placed.restored(one) if good else Defect(**one) for good, one in placed]

    def _records(
        self,
        name: str,
        kind: str,
        series: Series,
        placed: Iterable[Placed | Defect],
        counts: Counts,
    ) -> Iterator[Record | Defect]:
        by_target: dict[int, dict[int, Placed]] = {}
        for one in placed:
            if isinstance(one, Defect):
                yield one
            else:
                by_target.setdefault(one.number, {})[one.slice] = one
        title = name or self.root.name
        for by_slice in by_target.values():
            areas = {i: one.area for i, one in by_slice.items()}
            self.choice.count_small(counts, areas, title)
            for index in self.choice.choose(areas):
                record = record_of(by_slice[index], name, title, kind, series)
                self._volumes[record.place["volume"]] = (series, by_slice)
                yield record

    def _notes(self, series: Series, has_truth: bool) -> Iterator[Defect]:
        if not has_truth:
            yield Defect(
                series.frames[0].file,
                f"the series of {len(series.frames)} images that it begins has no SEG and no "
                "RTSTRUCT: no case comes from it",
                note=True,
            )
        for defect in series.notes:
            # Without truth no case is lost.
            yield defect if has_truth else Defect(defect.path, defect.cause, note=True)

    def _scan(self, name: str) -> dict[str, Any]:
        try:
            return scan_segmentation(self.path(name), name)
        except Damaged as error:
            return {"defect": error.defect.as_dict()}

    def _regions(self, name: str) -> dict[str, Any]:
        try:
            structures = read_structures(self.path(name), name)
        except Damaged as error:
            return {"defect": error.defect.as_dict()}
        return {
            **facts_of_regions(structures),
            "notes": [note.as_dict() for note in structures.notes],
            "contours": len(structures.contours),
        }

    def _drawn(self, name: str, series: Series) -> Iterator[Placed | Defect]:
        return place_contours(name, self._structures(name), series, self.nested_holes)

    def _carried(
        self, name: str, facts: Facts, scan: dict[str, Any], series: Series
    ) -> Iterator[Placed | Defect]:
        def masks(frame: int, segment: int) -> np.ndarray:
            return self._shown(name, frame, segment, scan["labelmap"])

        return carry_segments(name, facts, scan, series, masks)

    def _structures(self, name: str) -> StructureSet:
        path = self.path(name)
        try:
            stat = path.stat()
        except OSError:
            return read_structures(path, name)  # which says what is wrong
        key = ("structures", name, stat.st_mtime_ns, stat.st_size)
        return self.cache.get(key, lambda: read_structures(path, name), lambda s: s.nbytes)
