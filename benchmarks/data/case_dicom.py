"""A synthetic DICOM series with a structure set, for the benchmark of indexing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import Dataset, Sequence
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage

_ROOT = "1.2.826.0.1.3680043.10.999.7"


def _dataset(kind: UID, series: int, number: int, stack: int) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = kind
    uid = UID(f"{_ROOT}.{series + 1}.{stack}.{number + 1}")
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.StudyInstanceUID = f"{_ROOT}.{series + 1}"
    data.SeriesInstanceUID = f"{_ROOT}.{series + 1}.{stack}"
    data.FrameOfReferenceUID = f"{_ROOT}.{series + 1}.9"
    data.PatientID, data.PatientName = f"patient {series}", "nobody"
    data.StudyDate, data.StudyTime = "20200101", "000000"
    return data


def write_series(folder: Path, series: int, slices: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Write CT slices and an RTSTRUCT with a rectangle around the mask of every slice.

    Args:
        folder: Made.
        series: Number, part of the identifiers.
        slices: Images (H, W, 3) uint8 and masks (H, W) uint8.
    """
    folder.mkdir(parents=True)
    contours = []
    for number, (image, mask) in enumerate(slices):
        data = _dataset(CTImageStorage, series, number, 1)
        data.Modality, data.InstanceNumber = "CT", number + 1
        data.Rows, data.Columns = image.shape[:2]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 1
        data.ImagePositionPatient, data.PixelSpacing = [0, 0, 3 * number], [1, 1]
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.SliceThickness, data.RescaleSlope, data.RescaleIntercept = 3, 1, -100
        data.PixelData = image[:, :, 0].astype(np.int16).tobytes()
        data.save_as(folder / f"slice{number:03d}.dcm", enforce_file_format=True)
        rows, columns = np.nonzero(mask)
        if len(rows):
            contours.append(_contour(data, rows, columns, 3.0 * number))
    _structures(series, contours).save_as(folder / "structures.dcm", enforce_file_format=True)


def _contour(image: Dataset, rows: np.ndarray, columns: np.ndarray, z: float) -> Dataset:
    left, right = columns.min() - 0.5, columns.max() + 0.5
    top, bottom = rows.min() - 0.5, rows.max() + 0.5
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    contour, reference = Dataset(), Dataset()
    reference.ReferencedSOPClassUID = image.SOPClassUID
    reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
    contour.ContourImageSequence = Sequence([reference])
    contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 4
    contour.ContourData = [float(value) for x, y in corners for value in (x, y, z)]
    return contour


def _structures(series: int, contours: list[Dataset]) -> Dataset:
    data = _dataset(RTStructureSetStorage, series, 0, 2)
    data.Modality, data.StructureSetLabel = "RTSTRUCT", "benchmark"
    region, drawn, frame = Dataset(), Dataset(), Dataset()
    region.ROINumber, region.ROIName = 1, "blob"
    region.ReferencedFrameOfReferenceUID = data.FrameOfReferenceUID
    drawn.ReferencedROINumber, drawn.ContourSequence = 1, Sequence(contours)
    study, referenced = Dataset(), Dataset()
    referenced.SeriesInstanceUID = f"{_ROOT}.{series + 1}.1"
    study.ReferencedSOPInstanceUID = data.StudyInstanceUID
    study.RTReferencedSeriesSequence = Sequence([referenced])
    frame.FrameOfReferenceUID = data.FrameOfReferenceUID
    frame.RTReferencedStudySequence = Sequence([study])
    data.ReferencedFrameOfReferenceSequence = Sequence([frame])
    data.StructureSetROISequence, data.ROIContourSequence = Sequence([region]), Sequence([drawn])
    return data
