"""Label images of volumes written as NRRD or MetaImage, on the grid of the file they belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg_gym.cases.volumes.geometry import VolumeGeometry
from medseg_gym.cases.volumes.requirements import require
from medseg_gym.cases.volumes.volume import ITK_SUFFIXES, volume_suffix
from medseg_gym.storage.atomic_write import atomic_path


def write_itk_labels(
    path: Path,
    labels: np.ndarray,
    geometry: VolumeGeometry,
    compress: bool = True,
    dtype: str = "uint8",
) -> None:
    """Write a label image with the scan's own voxel order, spacing, directions and origin.

    Of a scan that is NRRD or MetaImage those come from its header, number by number; of NIfTI from
    the affine.

    Args:
        path: Of the file, .nrrd or .mha; written at once or not at all.
        labels: (D, H, W) bool or uint8, as the volume is shown.
        geometry: Grid of the scan.
        compress: Compress the voxels.
        dtype: Of the voxels, "uint8" or "uint16".

    Raises:
        CaseError: Labels of another shape, or SimpleITK is not installed.
    """
    require(path.suffix, "SimpleITK")
    import SimpleITK

    stored = geometry.stored(labels).astype(dtype)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(stored.T))
    source = geometry.path
    if source is not None and volume_suffix(source.name) in ITK_SUFFIXES:
        reader = SimpleITK.ImageFileReader()
        reader.SetFileName(str(source))
        reader.ReadImageInformation()
        n = reader.GetDimension()
        directions = np.array(reader.GetDirection()).reshape(n, n)[:3, :3]
        spacing, origin = reader.GetSpacing()[:3], reader.GetOrigin()[:3]
    else:
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.affine
        lengths = np.linalg.norm(lps[:3, :3], axis=0)
        directions = lps[:3, :3] / lengths
        spacing, origin = tuple(lengths.tolist()), tuple(lps[:3, 3].tolist())
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(directions.ravel().tolist())
    with atomic_path(path) as temporary:
        written = temporary.with_name(temporary.name + path.suffix)  # the ending names the format
        SimpleITK.WriteImage(image, str(written), compress)
        written.replace(temporary)
