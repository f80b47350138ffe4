"""`dicom:PATH`: image series with SEG or RTSTRUCT as truth, one case per slice and target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from medseg_gym.cases.dicom.contours import (
    StructureSet,
    draw,
    facts_of_regions,
    place_contours,
    read_structures,
)
from medseg_gym.cases.dicom.facts import Facts, read_facts
from medseg_gym.cases.dicom.pictures import read_picture
from medseg_gym.cases.dicom.planes import Plane
from medseg_gym.cases.dicom.segmentation import (
    Placed,
    place_segments,
    scan_segmentation,
    segment_values,
)
from medseg_gym.cases.dicom.series import Series, assemble, series_of
from medseg_gym.cases.files import Damaged, Defect, Layout, Memo, Pixels, Record, walk
from medseg_gym.cases.files.spec import FileSpec
from medseg_gym.cases.volumes import parse_window, require
from medseg_gym.cases.volumes.slices import MIN_AREA, SliceChoice
from medseg_gym.errors import CaseError

MODALITIES = {
    "CT": "CT",
    "MR": "MRI",
    **dict.fromkeys(("CR", "DX", "DR", "MG", "XA", "RF", "RG", "PX", "IO"), "X-ray"),
    **dict.fromkeys(("US", "IVUS", "BDUS"), "ultrasound"),
    **dict.fromkeys(("OP", "OPV"), "fundus"),
    "ES": "endoscopy",
    **dict.fromkeys(("SM", "GM"), "microscopy"),
}
_LETTERS = {"axial": "z", "coronal": "y", "sagittal": "x"}
_NEVER_DICOM = (
    ".txt .md .json .csv .tsv .xml .html .htm .pdf .png .jpg .jpeg .gz .zip .tar .nii .nrrd .py "
    ".xlsx .docx .yaml .yml .log"
).split()


class DicomLayout(Layout):
    """DICOM files under a folder, whatever they are called.

    Slices are those that were acquired or reconstructed, shown in the radiological view.

    Options:
        window: "file" (default: the file's own window; without one soft tissue for CT, else
            percentiles of the frame), "file:2" (its second), or as
            `medseg_gym.cases.volumes.parse_window`.
        min_area: Pixels that a target has on a slice, at least (default 20).
        slices: "all" (default), "top:N" (the N largest per series and target) or "every:N".

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
    index_options = ()  # all is decided on what the index remembers
    options = ("window", "min_area", "slices")

    def __init__(self, spec: FileSpec) -> None:
        super().__init__(spec)
        require(self.name, "pydicom", "nibabel")
        area = int(spec.number("min_area", MIN_AREA, low=0))
        try:
            self.choice = SliceChoice.parse(spec.text("slices", "all"), area)
        except CaseError as error:
            raise spec.wrong("slices", str(error)) from error
        try:
            self.window = parse_window(spec.text("window"), "", own=True)
        except CaseError as error:
            raise spec.wrong("window", str(error)) from error

    def survey(self, memo: Memo) -> Iterator[Record | Defect]:
        """See `Layout.survey`."""
        kinds: dict[str, dict[str, Facts]] = {"image": {}, "seg": {}, "rtstruct": {}}
        for name in walk(self.root):
            if isinstance(name, Defect):
                yield name
                continue
            last = (name or self.root.name).rsplit("/", 1)[-1].lower()
            if last == "dicomdir" or last.endswith(tuple(_NEVER_DICOM)):
                continue
            facts = memo.remember(name, [self.path(name)], partial(self._facts, name))
            if "defect" in facts:
                yield Defect(**facts["defect"])
            elif facts["kind"] == "foreign":
                named = last.endswith((".dcm", ".dicom", ".ima"))
                yield Defect(name, "is not a DICOM file", note=not named)
            elif facts["kind"] in kinds:
                kinds[facts["kind"]][name] = facts
        series = list(assemble(kinds["image"]))
        told: set[str] = set()
        found: list[Record | Defect] = []
        for name, facts in kinds["seg"].items():
            found.extend(self._from_segmentation(memo, name, facts, series, told))
        for name in kinds["rtstruct"]:
            found.extend(self._from_structures(memo, name, series, told))
        for one in series:  # what is wrong with images comes first: it may be why truth is lost
            yield from self._notes(one, one.uid in told)
        yield from found

    def read(self, record: Record) -> Pixels:
        """See `Layout.read`."""
        image, truth = record.files[:2]
        place = record.place
        modality = self.spec.options.get("modality") or record.modality
        picture = read_picture(
            self.path(image), image, place["frame"], self.window, modality, place["whole"]
        )
        if place["kind"] == "seg":
            mask = np.zeros(picture.shape[:2], bool)
            for frame in place["parts"]:
                values = segment_values(self.path(truth), truth, frame)
                if values.shape != mask.shape:
                    raise Damaged(truth, f"is {values.shape}, its image {mask.shape}")
                mask |= values == (place["number"] if place["labelmap"] else 1)
        else:
            contours = self._structures(truth).contours
            chosen = [contours[number] for number in place["parts"]]
            mask = draw(chosen, Plane.of(place["plane"]), *picture.shape[:2])
        return Pixels(_turned(picture, place["turn"]), _turned(mask, place["turn"]))

    def _facts(self, name: str) -> Facts:
        try:
            return read_facts(self.path(name), name)
        except Damaged as error:
            return {"kind": "bad", "defect": error.defect.as_dict()}

    def _from_segmentation(
        self, memo: Memo, name: str, facts: Facts, series: list[Series], told: set[str]
    ) -> Iterator[Record | Defect]:
        scan = memo.remember(f"{name}|truth", [self.path(name)], lambda: self._scan(name))
        if "defect" in scan:
            yield Defect(**scan["defect"])
            return
        sops = [source[0] for sources, _ in scan["frames"] for source in sources]
        found = series_of(
            {**facts, "series": scan["series"], "sops": sops[:1]}, series, "segmentation"
        )
        if isinstance(found, str):
            yield Defect(name, found)
            return
        told.add(found.uid)
        yield from self._records(name, "seg", found, place_segments(name, facts, scan, found))

    def _from_structures(
        self, memo: Memo, name: str, series: list[Series], told: set[str]
    ) -> Iterator[Record | Defect]:
        by_uid = {one.uid: one for one in series}
        header = memo.remember(f"{name}|truth", [self.path(name)], lambda: self._regions(name))
        if "defect" in header:
            yield Defect(**header["defect"])
            return
        for skipped in header["skipped"]:
            yield Defect(name, f"{skipped} are no closed planar contours", note=True)
        if not header["contours"]:
            yield Defect(name, "holds no closed planar contour", note=True)
            return
        uid = series_of(header, series, "structure set")
        if isinstance(uid, str):
            yield Defect(name, uid)
            return
        told.add(uid.uid)
        files = [name, *dict.fromkeys(frame.file for frame in uid.frames)]
        placed = memo.remember(
            f"{name}|{uid.uid}",
            [self.path(file) for file in files],
            lambda: self._drawn(name, by_uid[uid.uid]),
        )
        found: list[Placed | Defect] = [
            Defect(**entry) if isinstance(entry, dict) else _placed(entry) for entry in placed
        ]
        yield from self._records(name, "rtstruct", uid, found)

    def _records(
        self, name: str, kind: str, series: Series, placed: Iterable[Placed | Defect]
    ) -> Iterator[Record | Defect]:
        by_target: dict[int, dict[int, Placed]] = {}
        for one in placed:
            if isinstance(one, Defect):
                yield one
            else:
                by_target.setdefault(one.number, {})[one.slice] = one
        view, facts = series.view, series.facts
        size = (facts["rows"], facts["columns"])
        turn = [False] * 3
        if view is not None:
            size = (view.shape[1], view.shape[2])
            # A frame is (row, column) but the view's voxel axes are (column, row).
            turn = [view.order[1] == 0, view.flips[1], view.flips[2]]
        letter = "f" if view is None else _LETTERS[view.axis]
        for number, by_slice in by_target.items():
            for index in self.choice.choose({i: one.area for i, one in by_slice.items()}):
                one, frame = by_slice[index], series.frames[index]
                plane = frame.plane
                yield Record(
                    key=f"{name or self.root.name}/{letter}{index:03d}/{number}-{one.target}",
                    target=one.target,
                    files=(frame.file, name),
                    place={
                        "kind": kind,
                        "frame": frame.number,
                        "whole": frame.file in series.whole,
                        "parts": list(one.parts),
                        "number": number,
                        "labelmap": kind == "seg" and one.labelmap,
                        "turn": turn,
                        "plane": None if kind == "seg" or plane is None else plane.as_facts(),
                    },
                    group=facts["patient"] or facts["study"] or series.uid,
                    modality=MODALITIES.get(facts["modality"], ""),
                    spacing=_spacing(plane, turn[0], facts),
                    size=size,
                    area=one.area,
                )

    def _notes(self, series: Series, told: bool) -> Iterator[Defect]:
        if not told:
            yield Defect(
                series.frames[0].file,
                f"the series of {len(series.frames)} pictures that it begins has no SEG and no "
                "RTSTRUCT: no case comes from it",
                note=True,
            )
        for defect in series.notes:
            # Without truth no case is lost.
            yield defect if told else Defect(defect.path, defect.cause, note=True)

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
            "skipped": structures.skipped,
            "contours": len(structures.contours),
        }

    def _drawn(self, name: str, series: Series) -> list[Any]:
        found: list[Any] = []
        for one in place_contours(name, self._structures(name), series):
            if isinstance(one, Defect):
                found.append(one.as_dict())
            else:
                found.append([one.number, one.target, one.slice, one.parts, one.area])
        return found

    def _structures(self, name: str) -> StructureSet:
        path = self.path(name)
        try:
            stat = path.stat()
        except OSError:
            return read_structures(path, name)  # which says what is wrong
        key = ("structures", name, stat.st_mtime_ns, stat.st_size)
        return self.cache.get(key, lambda: read_structures(path, name), lambda s: s.nbytes)


def _placed(entry: list[Any]) -> Placed:
    number, target, index, parts, area = entry
    return Placed(number, target, index, tuple(parts), area)


def _spacing(plane: Plane | None, swapped: bool, facts: Facts) -> tuple[float, float] | None:
    spacing = plane.spacing if plane is not None else facts.get("spacing")
    if spacing is None:
        return None
    return (spacing[1], spacing[0]) if swapped else (spacing[0], spacing[1])


def _turned(array: np.ndarray, turn: list[bool]) -> np.ndarray:
    if turn[0]:
        array = array.swapaxes(0, 1)
    if turn[1]:
        array = array[::-1]
    if turn[2]:
        array = array[:, ::-1]
    return np.ascontiguousarray(array)
