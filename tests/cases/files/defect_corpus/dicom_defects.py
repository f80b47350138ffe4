"""Defects of DICOM: files, series, segmentations and structure sets."""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from dicom_writing import segmentation, slice_dataset, structure_set, uid, write
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML, JPEG2000Lossless, RLELossless
from volume_writing import piece

from defect_corpus import Expected, defect

SLICES = 4
SEG, RT = "truth/seg.dcm", "truth/rt.dcm"


def pixels_and_masks() -> tuple[np.ndarray, np.ndarray]:
    """CT (4, 32, 32) int16 and masks (4, 32, 32, 2) uint8."""
    pixels, labels = piece(slice(14, 18), step=4)
    return pixels, np.stack([labels == 5, labels == 6], axis=3).astype(np.uint8)


def series(root: Path, number: int = 1, **elements: Any) -> list[Dataset]:
    """Four slices, `series1/0.dcm` to `series1/3.dcm`."""
    pixels, _ = pixels_and_masks()
    slices = [slice_dataset(p, i, series=number, **elements) for i, p in enumerate(pixels)]
    for i, data in enumerate(slices):
        write(root / f"series{number}/{i}.dcm", data)
    return slices


def truth(root: Path, sources: list[Dataset], kind: str = SEG) -> None:
    """Two targets on every slice."""
    _, masks = pixels_and_masks()
    if kind == SEG:
        write(root / SEG, segmentation(sources, masks, ["R", "L"]))
    else:
        named = {"R": masks[..., 0] > 0, "L": masks[..., 1] > 0}
        write(root / RT, structure_set(sources, named))


def spoiled(
    name: str,
    spoil: Callable[[Path], object],
    path: str,
    cause: str,
    healthy: int = 2 * SLICES,
    kind: str = SEG,
    options: str = "",
    **flags: bool,
) -> None:
    """Register a defect of one series with its truth."""

    def make(root: Path) -> Expected:
        truth(root, series(root), kind)
        spoil(root)
        return Expected(path, cause, healthy, options, **flags)

    defect("dicom", name)(make)


def edit(name: str, change: Callable[[Dataset], object]) -> Callable[[Path], object]:
    """Read a DICOM file, change it, write it."""

    def apply(root: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the values are meant to be wrong
            data = dcmread(root / name)
            change(data)
            data.save_as(root / name)

    return apply


def put(**values: Any) -> Callable[[Dataset], object]:
    def change(data: Dataset) -> None:
        for keyword, value in values.items():
            setattr(data, keyword, value)

    return change


def without(*keywords: str) -> Callable[[Dataset], object]:
    def change(data: Dataset) -> None:
        for keyword in keywords:
            delattr(data, keyword)

    return change


def file(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda root: (root / name).write_bytes(content)


def shortened(name: str, left: Callable[[int], int]) -> Callable[[Path], object]:
    def apply(root: Path) -> None:
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: left(len(content))])

    return apply


ONE = "series1/2.dcm"
LOST = "refer to instances that are not among the images"

# --- single files --------------------------------------------------------------------
spoiled("zero-bytes", file("series1/9.dcm", b""), "series1/9.dcm", "empty")
spoiled("text-named-dcm", file("series1/9.dcm", b"hello" * 99), "series1/9.dcm", "not a DICOM file")
spoiled("not-dicom", file("series1/LICENSE", b"MIT" * 99), "series1/LICENSE", "not a", note=True)
spoiled("preamble-alone", file("a.dcm", bytes(128) + b"DICM"), "a.dcm", "not a DICOM file")
spoiled("no-pixel-data", edit(ONE, without("PixelData")), ONE, "has no pixel data", 6)
spoiled("truncated-pixels", shortened(ONE, lambda n: n - 500), ONE, "2048 bytes are announced", 6)
spoiled("truncated-header", shortened(ONE, lambda n: 500), ONE, "no SOPInstanceUID|InstanceUID", 6)
spoiled("truncated-meta", shortened(ONE, lambda n: 150), ONE, "not a DICOM file", 6)
spoiled("no-uids", edit(ONE, without("SOPInstanceUID")), ONE, "no SOPInstanceUID", 6)
spoiled(
    "pixel-bomb",
    edit(ONE, put(Rows=65535, Columns=65535)),
    ONE,
    "announces 65535 x 65535 pixels",
    6,
)
spoiled("frames-bomb", edit(ONE, put(NumberOfFrames=99999)), ONE, "204797952 bytes", 6)
spoiled("no-rows", edit(ONE, put(Rows=0)), ONE, "has no pixels", 6)
spoiled("odd-bits", edit(ONE, put(BitsAllocated=13)), ONE, "[Bb]its [Aa]llocated", 6)
spoiled("slope-is-empty", edit(ONE, put(RescaleSlope=None)), ONE, "Slope is empty", 6)
spoiled(
    "constant-slice",
    edit(ONE, lambda d: put(PixelData=bytes(len(d.PixelData)))(d)),
    ONE,
    "all pixels are 0: there is nothing to see",
    6,
)


def rewritten(name: str, old: bytes, new: bytes) -> Callable[[Path], object]:
    """Replace the transfer syntax in the bytes of a file: pydicom refuses to write some."""

    def apply(root: Path) -> None:
        content = (root / name).read_bytes()
        assert content.count(old) >= 1
        (root / name).write_bytes(content.replace(old, new.ljust(len(old), b"\0"), 1))

    return apply


PLAIN = b"1.2.840.10008.1.2.1\0"


def packed(name: str, syntax_uid: str, spoil: Callable[[Dataset], object]) -> Callable[[Path], Any]:
    def change(data: Dataset) -> None:
        data.compress(syntax_uid, generate_instance_uid=False)
        spoil(data)

    return edit(name, change)


def as_video(data: Dataset) -> None:
    data.PixelData = encapsulate([b"film"])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = MPEG2MPML


def scratch(data: Dataset) -> None:
    content = bytearray(data.PixelData)
    content[100:400] = bytes(300)
    data.PixelData = bytes(content)


spoiled("private-syntax", rewritten(ONE, PLAIN, b"1.2.840.113619.5.2"), ONE, "private transfer", 6)
spoiled("unknown-syntax", rewritten(ONE, PLAIN, b"1.2.840.10008.1.2.4"), ONE, "is not known", 6)
spoiled("video-syntax", edit(ONE, as_video), ONE, "MPEG2 .* which is not read", 6)
spoiled(
    "compressed-size-differs", packed(ONE, JPEG2000Lossless, put(Rows=16)), ONE, "32 x 32 pixels", 6
)
spoiled("scratched-jpeg2000", packed(ONE, JPEG2000Lossless, scratch), ONE, "decode|decoding", 6)
spoiled("scratched-rle", packed(ONE, RLELossless, scratch), ONE, "frame 0", 6)


def deflate_bomb(root: Path) -> None:
    content = (root / ONE).read_bytes()
    head = 144 + int.from_bytes(content[140:144], "little")
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    parts = [squeezer.compress(content[head:])]
    parts += [squeezer.compress(bytes(1 << 20)) for _ in range(300)]
    meta = content[:head].replace(PLAIN, b"1.2.840.10008.1.2.1.99")
    grown = len(meta) - head
    length = int.from_bytes(meta[140:144], "little") + grown
    meta = meta[:140] + length.to_bytes(4, "little") + meta[144:]
    at = meta.index(b"1.2.840.10008.1.2.1.99") - 2
    meta = meta[:at] + (22).to_bytes(2, "little") + meta[at + 2 :]
    (root / ONE).write_bytes(meta + b"".join(parts) + squeezer.flush())


spoiled("deflate-bomb", deflate_bomb, ONE, "inflates to more than", 6)

# --- series --------------------------------------------------------------------------
spoiled(
    "another-size",
    edit(ONE, lambda d: put(Rows=30, PixelData=d.PixelData[: 30 * 64])(d)),
    ONE,
    "another size.*30 32 instead of 32 32",
    6,
)
spoiled(
    "another-orientation",
    edit(ONE, put(ImageOrientationPatient=[0, 1, 0, 0, 0, -1])),
    ONE,
    "another orientation",
    6,
)
spoiled("another-spacing", edit(ONE, put(PixelSpacing=[1, 1])), ONE, "another pixel spacing", 6)
spoiled("another-patient", edit(ONE, put(PatientID="B")), ONE, "but another PatientID", 6)
spoiled(
    "same-instance-twice",
    lambda r: (r / "series1/copy.dcm").write_bytes((r / ONE).read_bytes()),
    "series1/copy.dcm",
    "same SOPInstanceUID as 'series1/2.dcm'",
)
spoiled("missing-slice", lambda r: (r / ONE).unlink(), SEG, f"2 of 8 frames: {LOST}", 6)
spoiled("position-nan", edit(ONE, put(ImagePositionPatient=["1e400", 0, 0])), ONE, "not finite", 6)
spoiled(
    "flat-orientation",
    edit(ONE, put(ImageOrientationPatient=[1, 0, 0, 1, 0, 0])),
    ONE,
    "no two directions at right angles",
    6,
)
spoiled("spacing-of-zero", edit(ONE, put(PixelSpacing=[0, 0])), ONE, "0 0 is no spacing", 6)
spoiled("spacing-nan", edit(ONE, put(PixelSpacing=["nan", "nan"])), ONE, "is not finite", 6)
spoiled("no-position", edit(ONE, without("ImagePositionPatient")), ONE, "no usable position", 6)


@defect("dicom", "gap")
def _(root: Path) -> Expected:
    sources = series(root)
    _, masks = pixels_and_masks()
    masks[2] = 0
    write(root / SEG, segmentation(sources, masks, ["R", "L"]))
    (root / ONE).unlink()
    cause = "slices missing between this one and 'series1/3.dcm': 1; these two lie 10 mm apart"
    return Expected("series1/1.dcm", cause, 6, note=True)


@defect("dicom", "two-phases-at-one-place")
def _(root: Path) -> Expected:
    sources = series(root)
    truth(root, sources)
    pixels, _ = pixels_and_masks()
    write(root / "series1/again.dcm", slice_dataset(pixels[1], 1, SOPInstanceUID=uid(1, 77)))
    return Expected("series1/again.dcm", "where another one lies already", 8, note=True)


@defect("dicom", "series-without-truth")
def _(root: Path) -> Expected:
    truth(root, series(root))
    series(root, 2)
    return Expected("series2/0.dcm", "no SEG and no RTSTRUCT", 8, note=True)


# --- SEG -----------------------------------------------------------------------------
def beside(
    name: str, kind: str, cause: str, change: Callable[[Dataset], object], note: bool = False
) -> None:
    """Register a defect of the truth of a second series; the first one is healthy."""

    def make(root: Path) -> Expected:
        truth(root, series(root))
        other = "truth2/other.dcm"
        sources = series(root, 2)
        _, masks = pixels_and_masks()
        if kind == SEG:
            data = segmentation(sources, masks, ["R", "L"], number=51)
        else:
            data = structure_set(sources, {"R": masks[..., 0] > 0}, number=61)
        write(root / other, data)
        edit(other, change)(root)
        return Expected(other, cause, 8, note=note)

    defect("dicom", name)(make)


def refer_elsewhere(data: Dataset) -> None:
    data.ReferencedSeriesSequence[0].SeriesInstanceUID = uid(77)
    for group in data.PerFrameFunctionalGroupsSequence:
        for source in group.DerivationImageSequence[0].SourceImageSequence:
            source.ReferencedSOPInstanceUID = uid(77, 1)


def each_frame(change: Callable[[Dataset], object]) -> Callable[[Dataset], object]:
    def apply(data: Dataset) -> None:
        for group in data.PerFrameFunctionalGroupsSequence:
            change(group)

    return apply


def shift(group: Dataset) -> None:
    position = group.PlanePositionSequence[0]
    position.ImagePositionPatient = [float(v) + 7 for v in position.ImagePositionPatient]


def shift_unreferenced(group: Dataset) -> None:
    shift(group)
    del group.DerivationImageSequence


def name_segment(group: Dataset) -> None:
    group.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 9


beside("seg-of-another-series", SEG, f"refers to series {uid(77)}, which is not", refer_elsewhere)
beside("seg-lies-elsewhere", SEG, "lie elsewhere than the images", each_frame(shift))
beside("seg-lies-nowhere", SEG, "lie where no image is|another", each_frame(shift_unreferenced))
beside("seg-unnamed-segment", SEG, "segment 9, which SegmentSequence", each_frame(name_segment))
beside("seg-without-segments", SEG, "names no segments", without("SegmentSequence"))
beside(
    "seg-shows-no-segment",
    SEG,
    "which segment its frames show",
    each_frame(without("SegmentIdentificationSequence")),
)
beside(
    "seg-says-nothing",
    SEG,
    "neither which image they belong to nor where",
    each_frame(without("DerivationImageSequence", "PlanePositionSequence")),
)
beside("seg-of-another-size", SEG, "16 x 64 pixels, the images 32 x", put(Rows=16, Columns=64))
beside("seg-truncated", SEG, "truncated", lambda d: put(PixelData=d.PixelData[:100])(d))
beside("seg-without-pixels", SEG, "no pixel data", without("PixelData"))


# --- RTSTRUCT ------------------------------------------------------------------------
def each_contour(change: Callable[[Dataset], object]) -> Callable[[Dataset], object]:
    def apply(data: Dataset) -> None:
        for contour in data.ROIContourSequence[0].ContourSequence:
            change(contour)

    return apply


def another_frame(data: Dataset) -> None:
    data.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = uid(78)


def another_series(data: Dataset) -> None:
    frame = data.ReferencedFrameOfReferenceSequence[0]
    study = frame.RTReferencedStudySequence[0]
    study.RTReferencedSeriesSequence[0].SeriesInstanceUID = uid(77)
    each_contour(without("ContourImageSequence"))(data)


def tilt(contour: Dataset) -> None:
    points = np.array(contour.ContourData, float).reshape(-1, 3)
    points[::2, 2] += 9
    contour.ContourData = [f"{v:.3f}" for v in points.ravel()]


def lift(contour: Dataset) -> None:
    points = np.array(contour.ContourData, float).reshape(-1, 3) + np.array([0, 0, 900])
    contour.ContourData = [f"{v:.3f}" for v in points.ravel()]
    del contour.ContourImageSequence


def no_reference(data: Dataset) -> None:
    del data.ReferencedFrameOfReferenceSequence
    data.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = ""
    each_contour(without("ContourImageSequence"))(data)


beside("rt-of-another-frame-of-reference", RT, "in another frame of reference", another_frame)
beside("rt-of-another-series", RT, f"refers to series {uid(77)}, which is not", another_series)
beside("rt-refers-to-nothing", RT, "no series shares the frame of reference", no_reference)
beside("rt-not-in-a-plane", RT, "do not lie in the plane of an image", each_contour(tilt))
beside("rt-above-the-images", RT, "lie where no image is.*: [1-9]", each_contour(lift), note=True)
beside(
    "rt-not-three-numbers",
    RT,
    "region 1, contour 0: .* no points of three",
    each_contour(put(ContourData=[1.0, 2.0, 3.0, 4.0])),
)
beside(
    "rt-region-without-a-name",
    RT,
    "StructureSetROISequence does not name",
    lambda d: put(ROINumber=5)(d.StructureSetROISequence[0]),
)
spoiled(
    "rt-open-contours",
    edit(
        RT,
        lambda d: put(ContourGeometricType="OPEN_PLANAR")(
            d.ROIContourSequence[1].ContourSequence[0]
        ),
    ),
    RT,
    "region 'L': OPEN_PLANAR contours are no closed planar contours: 1",
    8,
    RT,
    note=True,
)

# --- the file system -----------------------------------------------------------------
spoiled("unreadable", lambda r: (r / ONE).chmod(0), ONE, "denied", 6, unprivileged=True)
spoiled("fifo", lambda r: os.mkfifo(r / "pipe.dcm"), "pipe.dcm", "is a FIFO")
spoiled("link-loop", lambda r: (r / "again").symlink_to(r), "again", "symbolic link loop")


@defect("dicom", "non-ascii-and-spaces")
def _(root: Path) -> Expected:
    folder = root / "Müller 研究 1"
    truth(folder, series(folder))
    shortened(ONE, lambda n: n - 500)(folder)
    return Expected(f"Müller 研究 1/{ONE}", "truncated", 6)
