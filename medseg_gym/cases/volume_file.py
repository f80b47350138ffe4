"""One scan as a source of volumes: "volume:ct.nii.gz?truth=labels.nii.gz&value=6"."""

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
    label: str = "",
    modality: str = "",
    window: str = "",
    axis: str = "auto",
    channel: int = -1,
    series: str = "",
    resample: str = "off",
) -> VolumeList:
    """Open one scan and its truth; every split holds it.

    Args:
        argument: NIfTI, NRRD or MetaImage file; or DICOM: a folder, or a file of many frames.
        split: Named in messages only.
        truth: Label file; of DICOM a SEG or RTSTRUCT.
        target: What to segment, in words; by default `label`, or the name of the truth's file.
        value: Label value of the target; -1 takes all that are not zero. Not for DICOM.
        label: Of DICOM: name of the segment or region; by default the target, or the only one.
        modality: As in `Case`; decides the usual window.
        window: As `parse_window` reads it.
        axis: Along which it is cut; "auto" takes the one of the largest spacing.
        channel: Volume along a fourth axis; -1 where there is one alone. Not for DICOM.
        series: SeriesInstanceUID, where a DICOM folder holds several series.
        resample: "nearest" carries labels on another grid over; "off" refuses them. Not for DICOM.

    Raises:
        CaseError: No truth, or a file or an option that cannot be used.
    """
    from medseg_gym.cases.volumes import volume_suffix
    from medseg_gym.cases.volumes.scan import read_volume_file

    if not argument or not truth:
        raise CaseError(
            f"volume:{argument}: give the scan and its truth, for example "
            "volume:ct.nii.gz?truth=labels.nii.gz&value=6&target=left lung"
        )
    image, labels = Path(argument).expanduser(), Path(truth).expanduser()
    for path, there in ((image, image.exists()), (labels, labels.is_file())):
        if not there:
            raise CaseError(f"volume:{argument}: there is no file {path}")
    target = target or label or labels.name.split(".")[0]
    left_out: dict[str, int] = {}
    if image.is_file() and volume_suffix(image.name):
        _refuse(argument, "a volume file", label=label, series=series)
        which = "no voxel above 0" if value < 0 else f"no voxel of value {value}"
        case = read_volume_file(
            image,
            target,
            labels,
            modality,
            window,
            axis,
            None if channel < 0 else channel,
            None if value < 0 else value,
            resample,
            left_out,
        )
    else:
        from medseg_gym.cases.dicom.scan import read_series

        which = f"no voxel of {(label or target)!r} on the slices of the series"
        numbers = {"value": value + 1, "channel": channel + 1}
        _refuse(argument, "DICOM", **numbers, resample="" if resample == "off" else resample)
        case, left_out = read_series(
            image, target, labels, modality, window, axis, series, label or target
        )
    if not case.mask.any():
        raise CaseError(f"volume:{argument}: {labels} holds {which}; nothing is to be segmented")
    return VolumeList([case], name=f"volume:{argument}", split=split, left_out=left_out)


def _refuse(argument: str, what: str, **given: object) -> None:
    """Refuse options that do nothing.

    Raises:
        CaseError: One is given.
    """
    for name, value in given.items():
        if value:
            raise CaseError(f"volume:{argument}: {name}= does nothing with {what}; leave it out")
