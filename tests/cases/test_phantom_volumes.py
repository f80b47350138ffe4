"""Phantom volumes: the same key gives the same voxels, and organs go on through slices."""

from __future__ import annotations

import numpy as np
import pytest

from medseg_gym.cases import CaseError, VolumeCase
from medseg_gym.cases.phantoms.volumes import LENGTH, TARGETS, PhantomVolumes
from medseg_gym.cases.phantoms.volumes.source import _drawing
from medseg_gym.cases.volume_source import VolumeList, load_volumes, names
from tests.cases.files import volume_writing


def test_a_key_gives_the_same_voxels_for_ever():
    source = load_volumes("phantoms-volume", "val")
    assert isinstance(source, PhantomVolumes) and len(source) == LENGTH
    case = source[7]
    _drawing.cache_clear()
    again = source[source.index_of(case.key)]
    assert (again.image == case.image).all() and (again.mask == case.mask).all()
    assert case.synthetic and case.target == TARGETS[1] and case.modality == "CT"
    assert source[6].group == case.group != source[5].group
    assert source[6].content_hash == case.content_hash
    assert source[-1].key == source.keys[LENGTH - 1]
    other = load_volumes("phantoms-volume", "train")[7]
    assert other.image.shape != case.image.shape or (other.image != case.image).any()


def test_organs_go_on_from_slice_to_slice_and_lesions_lie_in_few():
    source = load_volumes("phantoms-volume", "train")
    for number in range(2):
        liver, spleen, _, _, aorta, lesion = (source[6 * number + i] for i in range(6))
        assert liver.spacing[0] > 2 * liver.spacing[1]
        slices = [np.flatnonzero(case.mask.any(axis=(1, 2))) for case in (liver, spleen, lesion)]
        assert all((np.diff(one) == 1).all() for one in slices)
        assert 2 <= len(slices[2]) <= 6 < len(slices[0]) < liver.depth
        assert aorta.mask.any(axis=(1, 2)).all()
        assert (lesion.mask <= liver.mask).all()
        inner = slices[0][2:-3]
        both = (liver.mask[inner] & liver.mask[inner + 1]).sum(axis=(1, 2))
        assert (both > 0.6 * liver.mask[inner].sum(axis=(1, 2))).all()


def test_a_file_and_its_labels_are_a_source(tmp_path):
    image, labels = volume_writing.piece()
    scan = volume_writing.save(tmp_path / "ct.nii.gz", image)
    truth = volume_writing.save(tmp_path / "lungs.nii.gz", volume_writing.lungs(labels))
    source = load_volumes(f"volume:{scan}?truth={truth}&value=2&modality=CT&target=left lung")
    case = source[0]
    assert case.target == "left lung" and case.mask.sum() == (labels == 6).sum()
    assert case.spacing[0] == 10.0 and case.geometry is not None
    assert load_volumes(f"volume:{scan}?truth={truth}")[0].target == "lungs"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("phantom-volume", "phantoms-volume"),
        ("phantoms-volume:abdomen", "takes no argument"),
        ("volume:ct.nii.gz", "give the scan and its truth"),
        ("volume:nowhere.nii?truth=labels.nii", "there is no file"),
    ],
)
def test_specs_that_cannot_be_used_name_the_way_out(spec, words):
    with pytest.raises(CaseError, match=words):
        load_volumes(spec)


def test_a_label_that_is_not_there_is_refused(tmp_path):
    image, labels = volume_writing.piece()
    scan = volume_writing.save(tmp_path / "ct.nii.gz", image)
    truth = volume_writing.save(tmp_path / "lungs.nii.gz", volume_writing.lungs(labels))
    with pytest.raises(CaseError, match="no voxel of value 9"):
        load_volumes(f"volume:{scan}?truth={truth}&value=9")


def test_lists_of_volumes_are_checked():
    one = VolumeCase("a", np.zeros((2, 3, 4), np.uint8), np.zeros((2, 3, 4), bool), "x")
    assert VolumeList([one]).index_of("a") == 0 and list(VolumeList([one])) == [one]
    for cases, words in (
        ([], "empty"),
        ([one, one], "repeated"),
        ([1], "expected medseg_gym VolumeCase"),
    ):
        with pytest.raises(CaseError, match=words):
            load_volumes(cases)
    assert names() == ("bids", "dicom", "nifti", "npz", "phantoms-volume", "volume")
