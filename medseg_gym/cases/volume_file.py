"""One volume file as a source of volumes: "volume:ct.nii.gz?truth=labels.nii.gz&value=6"."""

from __future__ import annotations

from pathlib import Path

from medseg_gym.cases.volume_source import VolumeList
from medseg_gym.errors import CaseError


def load(
    argument: str,
    split: str,
    truth: str = "",
    target: str = "",
    value: int = -1,
    modality: str = "",
    window: str = "",
    axis: str = "auto",
    channel: int = -1,
    resample: str = "off",
) -> VolumeList:
    """Open one scan and its truth; every split holds it.

    Args:
        argument: NIfTI, NRRD or MetaImage file.
        split: Named in messages only.
        truth: Label file.
        target: What to segment, in words; by default the name of the label file.
        value: Label value of the target; -1 takes all that are not zero.
        modality: As in `Case`; decides the usual window.
        window: As `parse_window` reads it.
        axis: Along which it is cut; "auto" takes the one of the largest spacing.
        channel: Volume along a fourth axis; -1 where there is one alone.
        resample: "nearest" carries labels on another grid over; "off" refuses them.

    Raises:
        CaseError: No truth, or a file or an option that cannot be used.
    """
    from medseg_gym.cases.volumes.scan import read_volume_file

    if not argument or not truth:
        raise CaseError(
            f"volume:{argument}: give the scan and its truth, for example "
            "volume:ct.nii.gz?truth=labels.nii.gz&value=6&target=left lung"
        )
    image, labels = Path(argument).expanduser(), Path(truth).expanduser()
    for path in (image, labels):
        if not path.is_file():
            raise CaseError(f"volume:{argument}: there is no file {path}")
    case = read_volume_file(
        image,
        target or labels.name.split(".")[0],
        labels,
        modality,
        window,
        axis,
        None if channel < 0 else channel,
        None if value < 0 else value,
        resample,
    )
    if not case.mask.any():
        which = "no voxel above 0" if value < 0 else f"no voxel of value {value}"
        raise CaseError(f"volume:{argument}: {labels} holds {which}; nothing is to be segmented")
    return VolumeList([case], name=f"volume:{argument}", split=split)
