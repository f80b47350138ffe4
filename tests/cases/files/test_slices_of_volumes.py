"""Slices and the volumes that they are of: the same voxels, whichever way they are asked for."""

from __future__ import annotations

import numpy as np
import pytest

from medseg_gym.cases import CaseError, load_cases
from medseg_gym.cases.volume_source import load_volumes

from .dicom_writing import Geometry, segmentation, structure_set, write, write_series
from .test_scans import GEOMETRIES
from .volume_writing import lungs, piece, save

ONE_SPLIT = "splits=0,0,100"


def nifti(root) -> str:
    image, labels = piece()
    save(root / "imagesTr" / "one.nii.gz", image, "PIR")
    save(root / "labelsTr" / "one.nii.gz", lungs(labels), "PIR")
    return f"nifti:{root}?labels=1:right lung,2:left lung&window=lung&{ONE_SPLIT}"


def dicom(root, geometry: Geometry, contours: bool = False) -> str:
    image, labels = piece()
    sources = write_series(root / "in", image, geometry)
    mask = labels == 5
    if contours:
        write(root / "rt.dcm", structure_set(sources, {"right lung": mask}))
    else:
        write(root / "seg.dcm", segmentation(sources, mask.astype(np.uint8), ["right lung"]))
    return f"dicom:{root}?window=lung&{ONE_SPLIT}"


def npz(root) -> str:
    image, labels = piece()
    shown = np.clip(image.astype(float) / 8 + 128, 0, 255).astype(np.uint8)
    root.mkdir(exist_ok=True)
    np.savez(root / "CT_one.npz", imgs=shown, gts=lungs(labels), spacing=(10.0, 3.0, 3.0))
    return f"npz:{root}?labels=1:right lung,2:left lung&{ONE_SPLIT}"


SPECS = {
    "nifti": nifti,
    "npz": npz,
    "contours": lambda root: dicom(root, GEOMETRIES["axial"], True),
    **{name: (lambda root, g=g: dicom(root, g)) for name, g in GEOMETRIES.items()},
}


@pytest.mark.parametrize("kind", list(SPECS))
def test_a_case_is_a_slice_of_its_volume(kind, tmp_path):
    spec = SPECS[kind](tmp_path / "data")
    source = load_cases(spec, "test")
    volumes = load_volumes(spec, "test")
    assert source.volumes is not None and volumes.keys == source.volumes.keys
    whole = {volume.key: volume for volume in volumes}
    for key in source.keys:
        case, place = source[source.index_of(key)], source.place_of(key)
        assert place is not None
        volume = whole[place.volume]
        assert (volume.mask[place.index] == case.mask).all() and case.mask.any()
        assert (volume.rgb(place.index) == case.image).all()
        assert (volume.target, volume.group, volume.modality) == (
            (case.target, case.group, case.modality)
        )
        assert volume.spacing is not None and volume.spacing[1:] == pytest.approx(case.spacing)
        if volume.geometry is not None:
            assert volume.geometry.spacing == pytest.approx(volume.spacing)
            assert volume.geometry.stored(volume.mask).shape == volume.geometry.shape
    assert (volumes.depth(0), len(whole)) == (6, 1 if "right lung" == source.targets[0] else 2)


@pytest.mark.parametrize("kind", ["nifti", "npz", "axial"])
def test_what_a_volume_holds_is_not_left_out_of_it(kind, tmp_path):
    floor = 45  # pixels: some slices of the lungs have fewer
    spec = f"{SPECS[kind](tmp_path / 'data')}&min_area={floor}"
    slices, volumes = load_cases(spec, "test"), load_volumes(spec, "test")
    areas = [volume.mask.sum(axis=(1, 2)) for volume in volumes]
    small = sum(int(((0 < area) & (area < floor)).sum()) for area in areas)
    assert small == sum(count for reason, count in slices.left_out.items() if "pixels" in reason)
    assert volumes.left_out == {}
    floor = int(min(area.max() for area in areas)) + 1
    spec = f"{SPECS[kind](tmp_path / 'data')}&min_area={floor}"
    gone = {f"targets with under {floor} pixels on every slice (min_area= changes that)": 1}
    if len(areas) == 1:
        with pytest.raises(CaseError, match="no case"):
            load_volumes(spec, "test")
    else:
        volumes = load_volumes(spec, "test")
        assert len(volumes) == len(areas) - 1 and volumes.left_out == gone
        assert not gone.keys() & load_cases(spec, "test").left_out.keys()
