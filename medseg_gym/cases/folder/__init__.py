"""Folders of images and masks that belong together by name: binary, index, instance or colour."""

from medseg_gym.cases.files import FileCaseSource, open_split
from medseg_gym.cases.folder.dataset_format import FolderFormat

__all__ = ["FolderFormat", "load"]


def load(argument: str, split: str) -> FileCaseSource:
    """Open a split for `load_cases("folder:ARGUMENT", split)`.

    Args:
        argument: Path of the folder, and options: see `FolderFormat`.
        split: "train", "val" or "test".

    Raises:
        CaseError: The data cannot be used.
    """
    return open_split(FolderFormat, argument, split)
