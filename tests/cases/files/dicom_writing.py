"""DICOM series, segmentations and structure sets for tests, written from real pixels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from highdicom.sr.coding import CodedConcept
from pydicom import Dataset
from pydicom import Sequence as Items
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from skimage.measure import find_contours

ROOT = "1.2.826.0.1.3680043.10.999"
CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def uid(*parts: int) -> str:
    """A UID that is the same on every run."""
    return ".".join([ROOT, *map(str, parts)])


@dataclass
class Geometry:
    """Geometry of the slices of a series."""

    origin: tuple[float, float, float] = (-40.0, -30.0, 100.0)
    orientation: tuple[float, ...] = AXIAL
    spacing: tuple[float, float] = (3.0, 2.5)  # rows, columns
    gap: float = 5.0

    def position(self, index: int) -> list[float]:
        along, down = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        place = np.array(self.origin) + index * self.gap * np.cross(along, down)
        return [round(float(v), 6) for v in place]


def slice_dataset(
    pixels: np.ndarray,
    index: int = 0,
    geometry: Geometry | None = None,
    series: int = 1,
    modality: str = "CT",
    **elements: Any,
) -> Dataset:
    """One single-frame image, int16 or uint16."""
    geometry = geometry or Geometry()
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CT if modality == "CT" else MR
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid(series, index + 1)
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SeriesInstanceUID, data.StudyInstanceUID = uid(series), uid(900)
    data.FrameOfReferenceUID, data.Modality = uid(901), modality
    data.PatientID, data.PatientName = f"patient {series}", "nobody"
    for empty in (
        "PatientBirthDate PatientSex AccessionNumber ReferringPhysicianName "
        "PositionReferenceIndicator"
    ).split():
        setattr(data, empty, "")
    data.StudyID, data.StudyDate, data.StudyTime = "1", "20200101", "000000"
    data.SeriesNumber, data.InstanceNumber, data.Manufacturer = 1, index + 1, "tests"
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, int(pixels.dtype.kind == "i")
    data.ImagePositionPatient = geometry.position(index)
    data.ImageOrientationPatient = list(geometry.orientation)
    data.PixelSpacing, data.SliceThickness = list(geometry.spacing), geometry.gap
    if modality == "CT":
        data.RescaleSlope, data.RescaleIntercept = 1, 0
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    data.PixelData = np.ascontiguousarray(pixels).tobytes()
    return data


def write(path: Path, data: Dataset) -> Path:
    """Save with preamble and file meta information."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path, volume: np.ndarray, geometry: Geometry | None = None, **elements: Any
) -> list[Dataset]:
    """One file per slice of (slices, rows, columns), with names that do not tell the order."""
    slices = [slice_dataset(pixels, i, geometry, **elements) for i, pixels in enumerate(volume)]
    for i, data in enumerate(slices):
        write(folder / f"IM{(i * 7 + 3) % 97:02d}", data)
    return slices


def segmentation(
    sources: Sequence[Dataset],
    masks: np.ndarray,
    names: Sequence[str],
    kind: str = "BINARY",
    number: int = 50,
    **options: Any,
) -> Dataset:
    """A SEG by highdicom: masks (slices, rows, columns, segments), or labels without the last."""
    lung = CodedConcept("39607008", "SCT", "Lung")
    described = [
        highdicom.seg.SegmentDescription(
            segment_number=i + 1,
            segment_label=name,
            segmented_property_category=CodedConcept("123037004", "SCT", "Anatomical Structure"),
            segmented_property_type=lung,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for i, name in enumerate(names)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return highdicom.seg.Segmentation(
            source_images=list(sources),
            pixel_array=masks,
            segmentation_type=kind,
            segment_descriptions=described,
            series_instance_uid=uid(number),
            series_number=2,
            sop_instance_uid=uid(number, 1),
            instance_number=1,
            manufacturer="tests",
            manufacturer_model_name="tests",
            software_versions="1",
            device_serial_number="1",
            **options,
        )


def structure_set(
    sources: Sequence[Dataset],
    masks: dict[str, np.ndarray],
    number: int = 60,
    kind: str = "CLOSEDPLANAR_XOR",
) -> Dataset:
    """An RTSTRUCT with the outlines of masks (slices, rows, columns), holes as inner contours."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid(number, 1)
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SeriesInstanceUID, data.StudyInstanceUID = uid(number), uid(900)
    data.Modality, data.PatientID = "RTSTRUCT", sources[0].PatientID
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = sources[0].SeriesInstanceUID
    study.RTReferencedSeriesSequence = Items([series])
    study.ReferencedSOPInstanceUID = uid(900)
    frame.RTReferencedStudySequence = Items([study])
    frame.FrameOfReferenceUID = sources[0].FrameOfReferenceUID
    data.ReferencedFrameOfReferenceSequence = Items([frame])
    regions, drawn = [], []
    for i, (name, mask) in enumerate(masks.items(), 1):
        region, outline = Dataset(), Dataset()
        region.ROINumber, region.ROIName = i, name
        region.ReferencedFrameOfReferenceUID = sources[0].FrameOfReferenceUID
        outline.ReferencedROINumber = i
        outline.ContourSequence = Items(
            contour
            for source, plane in zip(sources, mask, strict=True)
            for contour in contours(source, plane, kind)
        )
        regions.append(region)
        drawn.append(outline)
    data.StructureSetROISequence, data.ROIContourSequence = Items(regions), Items(drawn)
    return data


def contours(source: Dataset, mask: np.ndarray, kind: str = "CLOSED_PLANAR") -> list[Dataset]:
    """Outlines of a mask in patient coordinates."""
    lines = find_contours(np.pad(mask, 1).astype(float), 0.5)
    return [contour(source, line - 1, kind) for line in lines]


def contour(
    source: Dataset,
    corners: np.ndarray,
    kind: str = "CLOSED_PLANAR",
    lift: float = 0.0,
    reference: bool = True,
) -> Dataset:
    """A contour with these corners (row, column), `lift` mm off the plane of an image."""
    along = np.array(source.ImageOrientationPatient[:3], float)
    down = np.array(source.ImageOrientationPatient[3:], float)
    rows, columns = np.array(corners, float).T
    points = (
        np.array(source.ImagePositionPatient, float)
        + np.outer(rows * source.PixelSpacing[0], down)
        + np.outer(columns * source.PixelSpacing[1], along)
        + lift * np.cross(along, down)
    )
    item, image = Dataset(), Dataset()
    if reference:
        image.ReferencedSOPClassUID = source.SOPClassUID
        image.ReferencedSOPInstanceUID = source.SOPInstanceUID
        item.ContourImageSequence = Items([image])
    item.ContourGeometricType = kind
    item.NumberOfContourPoints = len(points)
    item.ContourData = [f"{value:.6f}" for value in points.ravel()]
    return item


def drawn(sources: Sequence[Dataset], regions: dict[str, list[Dataset]]) -> Dataset:
    """An RTSTRUCT with these contours."""
    data = structure_set(sources, {name: np.zeros((len(sources), 4, 4)) for name in regions})
    for roi, items in zip(data.ROIContourSequence, regions.values(), strict=True):
        roi.ContourSequence = Items(items)
    return data
